"""Federations: a model that clients of an organisation train together, round by round, on data they keep.

A federation has registered clients, each known by an Ed25519 key. A round takes one signed message of each client (in
secure aggregation: one per phase), is combined by a job, and leaves the next version of the model.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from neuroedge.contract.errors import Conflict, Forbidden, InvalidInput, NotFound
from neuroedge.contract.principal import Principal
from neuroedge.engines.decision.federated import MAX_NUMBERS
from neuroedge.kit.federated import secure, weights
from neuroedge.services.audit import audited
from neuroedge.services.federated_drafts import (
    MAX_CLIENTS,
    FederationClientDraft,
    FederationDraft,
    FederationMessageDraft,
    FederationSettings,
    decoded,
)
from neuroedge.services.federated_messages import check_content, check_time, genuine, payload_of, settings_of, shapes_of
from neuroedge.services.federated_rounds import FederatedRounds, folder, spent
from neuroedge.services.federated_secure import check_phase
from neuroedge.services.housekeeping import forget_blob, forget_blobs
from neuroedge.services.orphans import sweep_orphans
from neuroedge.services.run_engine import Contexts
from neuroedge.stores import federated as store
from neuroedge.stores.federated import Client, Federation, Message, Round
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

MAX_FEDERATIONS: Final = 1000
"""Of one organisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of a message."""

    round: Round
    known: bool
    """It was there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """What a client of a secure round needs for its next message."""

    round: Round
    keys: list[tuple[Client, Message]]
    """Signed keys of everybody in the round."""
    shares: dict[str, str]
    """Sealed shares for this client, by sender."""
    senders: list[str]
    """Who sent shares."""
    survivors: list[str]
    """Who sent a masked update."""


class Federations:
    """Federations of the caller's organisation."""

    def __init__(self, *, db: Database, contexts: Contexts, rounds: FederatedRounds) -> None:
        self._db = db
        self._contexts = contexts
        self._rounds = rounds

    async def create(self, principal: Principal, draft: FederationDraft, *, request_id: str) -> Federation:
        """Keep a model as version 0. Raises Conflict when there are too many."""
        federation_id, blob = new_id(), str(new_id())
        given = draft.weights.read()
        blobs = self._contexts.blobs(principal)
        told = {
            "name": draft.name,
            "settings": draft.settings.model_dump(),
            "shapes": {name: list(shape) for name, shape in weights.shapes_of(given).items()},
            "weights": blob,
        }
        try:
            await blobs.put(f"{folder(federation_id)}/{blob}", await asyncio.to_thread(weights.to_npz, given))
            async with self._db.tenant(principal) as conn:
                if await store.count(conn) >= MAX_FEDERATIONS:
                    raise Conflict(f"there are {MAX_FEDERATIONS} federations already", hint="delete some")
                made = await store.insert(conn, org_id=principal.org_id, federation_id=federation_id, told=told)
                await _audit(conn, principal, request_id, "federation.created", federation_id)
        except BaseException:
            await asyncio.shield(forget_blobs(blobs, folder(federation_id)))
            raise
        return made

    async def get(self, principal: Principal, federation_id: UUID) -> Federation:
        """One federation. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await _found(conn, federation_id)

    async def page(self, principal: Principal, *, limit: int, before: UUID | None) -> list[Federation]:
        """Newest first."""
        async with self._db.tenant(principal) as conn:
            return await store.page(conn, limit=limit, before=before)

    async def weights(self, principal: Principal, federation_id: UUID) -> tuple[Federation, bytes]:
        """The newest version as npz. Raises NotFound."""
        found = await self.get(principal, federation_id)
        try:
            data = await self._contexts.blobs(principal).get(f"{folder(federation_id)}/{found.told['weights']}")
        except NotFound:  # a round ended in between
            found = await self.get(principal, federation_id)
            data = await self._contexts.blobs(principal).get(f"{folder(federation_id)}/{found.told['weights']}")
        return found, data

    async def close(self, principal: Principal, federation_id: UUID, *, request_id: str) -> Federation:
        """Let no round open any more. Raises NotFound, Conflict while one runs."""
        async with self._db.tenant(principal) as conn:
            found = await _found(conn, federation_id, lock=True)
            if any(r.finished_at is None for r in await store.rounds(conn, federation_id, limit=1)):
                raise Conflict("a round is running", hint="end it first: POST …/rounds/{round_id}/end")
            if found.state == "open":
                await store.close(conn, federation_id, told={**found.told, "closed_because": "asked"})
                await _audit(conn, principal, request_id, "federation.closed", federation_id)
            return await _found(conn, federation_id)

    async def delete(self, principal: Principal, federation_id: UUID, *, request_id: str) -> None:
        """Delete everything. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            if not await store.delete(conn, federation_id):
                raise _not_found(federation_id)
            await _audit(conn, principal, request_id, "federation.deleted", federation_id)
        await forget_blobs(self._contexts.blobs(principal), folder(federation_id))

    async def register(
        self, principal: Principal, federation_id: UUID, draft: FederationClientDraft, *, request_id: str
    ) -> Client:
        """Add a client; again with the same key is fine. Raises NotFound, Conflict."""
        async with self._db.tenant(principal) as conn:
            found = await _found(conn, federation_id, lock=True)
            known = await store.clients(conn, federation_id)
            most = secure.MAX_CLIENTS if settings_of(found).secure else MAX_CLIENTS
            most = min(most, MAX_NUMBERS // weights.size(shapes_of(found)))
            if len(known) >= most and draft.name not in {client.name for client in known}:
                raise Conflict(f"a federation of this model has at most {most} clients")
            client, new = await store.add_client(
                conn,
                org_id=principal.org_id,
                federation_id=federation_id,
                name=draft.name,
                public_key=draft.public_key,
            )
            if not new and (client.public_key != draft.public_key or client.revoked):
                raise Conflict(
                    f"a client {draft.name!r} is there with another key, or revoked", hint="take another name"
                )
            if new:
                await _audit(conn, principal, request_id, "federation.client_registered", federation_id)
        return client

    async def clients(self, principal: Principal, federation_id: UUID) -> list[Client]:
        """All of them. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await _found(conn, federation_id)
            return await store.clients(conn, federation_id)

    async def revoke(self, principal: Principal, federation_id: UUID, client_id: UUID, *, request_id: str) -> None:
        """Take nothing more from a client; a running round waits for it no longer. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await _found(conn, federation_id)
            if not await store.revoke_client(conn, federation_id=federation_id, client_id=client_id):
                raise _no_client(client_id)
            for newest in await store.rounds(conn, federation_id, limit=1):
                if newest.finished_at is None:
                    await self._rounds.order(conn, principal.org_id, newest)
            await _audit(conn, principal, request_id, "federation.client_revoked", federation_id)

    async def open_round(self, principal: Principal, federation_id: UUID, *, request_id: str) -> Round:
        """Begin the next round. Raises NotFound, Conflict: closed, one runs, too few clients, no privacy left."""
        async with self._db.tenant(principal) as conn:
            found = await _found(conn, federation_id, lock=True)
            settings = settings_of(found)
            if found.state == "closed":
                raise Conflict(
                    f"the federation is closed ({found.told.get('closed_because')})", hint="make another federation"
                )
            able = sum(not client.revoked for client in await store.clients(conn, federation_id))
            if able < settings.min_clients:
                raise Conflict(f"{able} clients are registered; a round needs {settings.min_clients}")
            if not await self._affordable(conn, found, settings):
                closed = {**found.told, "closed_because": "privacy_budget"}
                await store.close(conn, federation_id, told=closed)
                opened = None
            else:
                opened = await self._rounds.open(conn, principal.org_id, found, settings)
                await _audit(conn, principal, request_id, "federation.round_opened", federation_id)
        if opened is None:
            raise Conflict("another round would exceed the privacy budget: the federation is closed")
        return opened

    async def _affordable(self, conn: Connection, found: Federation, settings: FederationSettings) -> bool:
        if settings.epsilon_budget is None:
            return True
        after = await asyncio.to_thread(spent, settings, found.noisy_rounds + 1)
        return after is not None and after <= settings.epsilon_budget

    async def rounds(
        self, principal: Principal, federation_id: UUID, *, limit: int, before: int | None = None
    ) -> list[Round]:
        """Newest first. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            await _found(conn, federation_id)
            return await store.rounds(conn, federation_id, limit=limit, before=before)

    async def round(self, principal: Principal, federation_id: UUID, round_id: UUID) -> Round:
        """One round. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            return await _round(conn, federation_id, round_id)

    async def end(self, principal: Principal, federation_id: UUID, round_id: UUID, *, request_id: str) -> Round:
        """Wait for nobody any more in this round, or phase. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            found = await _round(conn, federation_id, round_id, lock=True)
            if found.state in ("open", "collecting"):
                now = datetime.now(UTC)
                await store.move_round(
                    conn, round_id, state=found.state, phase=found.phase, deadline=now, told=found.told
                )
                await self._rounds.order(conn, principal.org_id, found)
                await _audit(conn, principal, request_id, "federation.round_ended", federation_id)
            return await _round(conn, federation_id, round_id)

    async def submit(
        self, principal: Principal, federation_id: UUID, round_id: UUID, draft: FederationMessageDraft
    ) -> Accepted:
        """Take a client's message. The same again is known. Raises NotFound, Forbidden for a bad signature or a revoked
        client, InvalidInput for a bad payload, Conflict for another phase, a late one, or another content."""
        client_id, payload = UUID(draft.client_id), payload_of(draft.payload)
        async with self._db.tenant(principal) as conn:
            federation = await _found(conn, federation_id)
            client = await store.client(conn, federation_id=federation_id, client_id=client_id)
            if client is None:
                raise _no_client(client_id)
            await _round(conn, federation_id, round_id)
        told = genuine(federation, client, round_id, draft, payload)
        await asyncio.to_thread(check_content, draft.kind, payload, shapes_of(federation))
        if draft.kind not in ("update", "masked"):
            return await self._keep(principal, federation, round_id, client, draft, {**told, "payload": draft.payload})
        blobs, name = self._contexts.blobs(principal), f"rounds/{round_id}/{new_id()}"
        place = f"{folder(federation_id)}/{name}"
        await blobs.put(place, payload)
        try:
            kept = await self._keep(principal, federation, round_id, client, draft, {**told, "blob": name})
        except (Conflict, Forbidden, InvalidInput, NotFound):
            await asyncio.shield(forget_blob(blobs, place))
            raise
        # After another error the message may be stored all the same; then the end of the round deletes its object.
        if kept.known:
            await asyncio.shield(forget_blob(blobs, place))
        return kept

    async def _keep(
        self,
        principal: Principal,
        federation: Federation,
        round_id: UUID,
        client: Client,
        draft: FederationMessageDraft,
        told: Mapping[str, Any],
    ) -> Accepted:
        async with self._db.tenant(principal) as conn:
            found = await _round(conn, federation.id, round_id, lock=True)
            before = [m for m in await store.messages(conn, round_id, draft.kind) if m.client_id == client.id]
            if before:
                if before[0].told["sha256"] != told["sha256"] or before[0].told["samples"] != draft.samples:
                    raise Conflict("this client has sent something else already", hint="what came first stays")
                return Accepted(round=found, known=True)
            check_time(found, draft)
            await check_phase(conn, found, client.id, draft.kind, decoded(draft.payload))
            await store.add_message(
                conn, org_id=principal.org_id, round_id=round_id, client_id=client.id, kind=draft.kind, told=told
            )
            return Accepted(round=await self._rounds.heard(conn, principal.org_id, federation, found), known=False)

    async def inbox(self, principal: Principal, federation_id: UUID, round_id: UUID, client_id: UUID) -> Inbox:
        """What a client of a secure round needs to go on. Raises NotFound."""
        async with self._db.tenant(principal) as conn:
            found = await _round(conn, federation_id, round_id)
            clients = {client.id: client for client in await store.clients(conn, federation_id)}
            if client_id not in clients:
                raise _no_client(client_id)
            keys = [] if found.phase == "keys" else await store.messages(conn, round_id, "keys")
            shares = [] if found.phase in ("keys", "shares") else await store.messages(conn, round_id, "shares")
            survivors = await store.senders(conn, round_id, "masked") if found.phase == "unmask" else set()
        me = str(client_id)
        sent = {str(m.client_id): _json(decoded(m.told["payload"])) for m in shares}
        return Inbox(
            round=found,
            keys=[(clients[m.client_id], m) for m in keys],
            shares={sender: told[me] for sender, told in sent.items() if me in told},
            senders=sorted(sent),
            survivors=sorted(map(str, survivors)),
        )

    async def sweep(self) -> int:
        """Delete objects of federations that are gone; how many federations."""
        return await sweep_orphans(self._db, self._contexts, "federations", exist=store.exist)


def _json(payload: bytes) -> dict[str, str]:
    told: dict[str, str] = json.loads(payload)
    return told


async def _found(conn: Connection, federation_id: UUID, *, lock: bool = False) -> Federation:
    found = await store.find(conn, federation_id, lock=lock)
    if found is None:
        raise _not_found(federation_id)
    return found


async def _round(conn: Connection, federation_id: UUID, round_id: UUID, *, lock: bool = False) -> Round:
    found = await store.round_of(conn, round_id, lock=lock)
    if found is None or found.federation_id != federation_id:
        raise NotFound(f"no round {round_id} in this federation", hint="GET /v1/federations/{federation_id}/rounds")
    return found


def _not_found(federation_id: UUID) -> NotFound:
    return NotFound(f"no federation {federation_id}", hint="GET /v1/federations lists yours")


def _no_client(client_id: UUID) -> NotFound:
    return NotFound(f"no client {client_id} in this federation", hint="GET /v1/federations/{federation_id}/clients")


async def _audit(conn: Connection, principal: Principal, request_id: str, action: str, federation_id: UUID) -> None:
    await audited(conn, principal, request_id=request_id, action=action, target=f"federation:{federation_id}")
