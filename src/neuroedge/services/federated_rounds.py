"""Rounds of federations: who is waited for, what comes next, and the aggregation, which a killed worker leaves to the
next one.

Everything a round knows is in its row, its messages and its objects. The transaction that stores the new version also
closes the round, so that an aggregation done twice, or cut off, changes the model once and spends privacy once.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import numpy as np
import structlog

from neuroedge.contract.errors import Conflict, NeuroEdgeError, NotFound
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.infra.queue import TASK_QUEUE, JobQueue
from neuroedge.kit.federated import aggregation, privacy, secure, weights
from neuroedge.kit.federated.aggregation import Adam, Combined
from neuroedge.services.federated_drafts import FederationSettings
from neuroedge.services.federated_secure import revealed
from neuroedge.services.housekeeping import forget_blob, service_principal
from neuroedge.services.run_engine import Contexts
from neuroedge.stores import federated as store
from neuroedge.stores import ledgers
from neuroedge.stores.federated import Federation, Message, Phase, Round
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Connection, Database

log = structlog.get_logger(__name__)

ADVANCE_TASK: Final = "advance_federated_round"
_CLOCKS_DIFFER: Final = timedelta(seconds=2)
"""By so much may the database, which starts the job of a deadline, be ahead."""
_NEXT: Final[dict[Phase, Phase]] = {"keys": "shares", "shares": "masked", "masked": "unmask"}
_BEFORE: Final[dict[Phase, Phase]] = {"shares": "keys", "masked": "shares", "unmask": "masked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The next version, before it is stored."""

    weights: bytes
    state: bytes | None
    result: dict[str, Any]


class FederatedRounds:
    """Moves rounds on."""

    def __init__(self, *, db: Database, contexts: Contexts, queue: JobQueue) -> None:
        self._db = db
        self._contexts = contexts
        self._queue = queue

    async def open(self, conn: Connection, org_id: UUID, federation: Federation, settings: FederationSettings) -> Round:
        """The next round, with a job for its deadline. Raises Conflict while another one runs."""
        deadline = datetime.now(UTC) + timedelta(seconds=settings.deadline_s)
        opened = await store.open_round(
            conn,
            org_id=org_id,
            federation_id=federation.id,
            phase="keys" if settings.secure else "update",
            deadline=deadline,
            told={"base_version": federation.version},
        )
        if opened is None:
            raise Conflict("a round is running", hint="end it first: POST …/rounds/{round_id}/end")
        await self.order(conn, org_id, opened, at=deadline)
        return opened

    async def order(self, conn: Connection, org_id: UUID, found: Round, *, at: datetime | None = None) -> None:
        """In the transaction of a change: have the round looked at, now or `at`."""
        lock = f"federation:{found.id}:{found.phase}:{'deadline' if at else new_id()}"
        args = {"org_id": str(org_id), "round_id": str(found.id)}
        await self._queue.defer(conn, ADVANCE_TASK, lock=lock, args=args, queue=TASK_QUEUE, run_at=at)

    async def heard(self, conn: Connection, org_id: UUID, federation: Federation, found: Round) -> Round:
        """In the transaction that stored a message: say that the round is collecting, go on when all have answered."""
        if found.state == "open" and found.phase in ("update", "masked"):
            await store.move_round(
                conn, found.id, state="collecting", phase=found.phase, deadline=found.deadline, told=found.told
            )
        if not await _awaited(conn, found) - await store.senders(conn, found.id, found.phase):
            await self.order(conn, org_id, found)
        return await store.round_of(conn, found.id) or found

    async def advance(self, org_id: UUID, round_id: UUID) -> None:
        """Do what is due: the next phase, the aggregation, or the end of a round with too few clients.

        A round that has ended loses what it left behind, also where the worker that ended it was killed before.
        """
        async with self._db.tenant(service_principal(org_id)) as conn:
            found = await store.round_of(conn, round_id, lock=True)
            if found is None:
                return
            if found.state in ("open", "collecting"):
                found = await self._moved(conn, org_id, found)
        if found.state == "aggregating":
            await self._aggregate(org_id, found)
        elif found.finished_at is not None:
            await self._forget_round(org_id, found)

    async def fail(self, org_id: UUID, round_id: UUID, *, code: str) -> None:
        """Give a round up; the model stays as it is."""
        async with self._db.tenant(service_principal(org_id)) as conn:
            found = await store.round_of(conn, round_id, lock=True)
            if found is not None and found.finished_at is None:
                await _failed(conn, found, code)
        if found is not None:
            try:
                await self._forget_round(org_id, found)
            except NeuroEdgeError as error:
                log.warning("federated_round_not_forgotten", round_id=str(round_id), detail=error.detail)

    async def _moved(self, conn: Connection, org_id: UUID, found: Round) -> Round:
        """One phase further, when everybody has answered or the deadline has passed."""
        federation = await store.find(conn, found.federation_id)
        assert federation is not None
        settings = FederationSettings.model_validate(federation.told["settings"])
        answered = await store.senders(conn, found.id, found.phase)
        if found.phase == "update":  # a revoked client's is left out of what is combined
            answered &= await _able(conn, found)
        late = datetime.now(UTC) >= found.deadline
        if not late and await _awaited(conn, found) - answered:
            if found.deadline - datetime.now(UTC) < _CLOCKS_DIFFER:
                await self.order(conn, org_id, found, at=found.deadline + _CLOCKS_DIFFER)
            return found
        if len(answered) < await _needed(conn, found, settings):
            if late:
                await _failed(conn, found, "too_few_clients")
            return await store.round_of(conn, found.id) or found
        if (following := _NEXT.get(found.phase)) is None:
            state: store.RoundState = "aggregating"
            await store.move_round(
                conn, found.id, state=state, phase=found.phase, deadline=found.deadline, told=found.told
            )
            return await store.round_of(conn, found.id) or found
        deadline = datetime.now(UTC) + timedelta(seconds=settings.deadline_s)
        state = "collecting" if following in ("masked", "unmask") else "open"
        await store.move_round(conn, found.id, state=state, phase=following, deadline=deadline, told=found.told)
        moved = await store.round_of(conn, found.id) or found
        await self.order(conn, org_id, moved, at=deadline)
        return moved

    async def _aggregate(self, org_id: UUID, found: Round) -> None:
        service = service_principal(org_id)
        blobs = self._contexts.blobs(service)
        try:
            outcome = await self._outcome(blobs, service.org_id, found)
        except (NotFound, ValueError) as error:  # where the federation was deleted meanwhile, there is nothing to fail
            log.warning("federated_round_failed", round_id=str(found.id), detail=str(error))
            await self.fail(org_id, found.id, code="not_combinable")
            await self._forget_round(org_id, found)
            return
        names = {"weights": str(new_id())} | ({"state": str(new_id())} if outcome.state else {})
        await blobs.put(f"{folder(found.federation_id)}/{names['weights']}", outcome.weights)
        if outcome.state:
            await blobs.put(f"{folder(found.federation_id)}/{names['state']}", outcome.state)
        if not await self._stored(org_id, found, names, outcome):
            for name in names.values():
                await forget_blob(blobs, f"{folder(found.federation_id)}/{name}")
        await self._forget_round(org_id, found)

    async def _stored(self, org_id: UUID, found: Round, names: dict[str, str], outcome: _Outcome) -> bool:
        """Store the new version and close the round, once; whether it was this time."""
        async with self._db.tenant(service_principal(org_id)) as conn:
            federation = await store.find(conn, found.federation_id, lock=True)
            now = await store.round_of(conn, found.id, lock=True)
            if federation is None or now is None or now.state != "aggregating":
                return False
            settings = FederationSettings.model_validate(federation.told["settings"])
            noisy = federation.noisy_rounds + (settings.noise_multiplier is not None)
            superseded = [federation.told[name] for name in names if name in federation.told]
            told = {**federation.told, **names, "superseded": superseded}
            result = {
                **outcome.result,
                "version": federation.version + 1,
                "epsilon": await asyncio.to_thread(spent, settings, noisy),
                "delta": settings.delta if settings.noise_multiplier is not None else None,
            }
            await store.save(conn, federation.id, told=told, version=federation.version + 1, noisy_rounds=noisy)
            await store.move_round(
                conn,
                found.id,
                state="closed",
                phase=found.phase,
                deadline=found.deadline,
                told={**found.told, "result": result},
            )
            if settings.epsilon_budget is not None:
                after = await asyncio.to_thread(spent, settings, noisy + 1)
                if after is None or after > settings.epsilon_budget:
                    await store.close(conn, federation.id, told={**told, "closed_because": "privacy_budget"})
            await _audit(conn, org_id, "federation.round_closed", federation.id)
        return True

    async def _outcome(self, blobs: TenantBlobs, org_id: UUID, found: Round) -> _Outcome:
        async with self._db.tenant(service_principal(org_id)) as conn:
            federation = await store.find(conn, found.federation_id)
            if federation is None:
                raise NotFound("the federation is gone")
            settings = FederationSettings.model_validate(federation.told["settings"])
            sent = await store.messages(conn, found.id, "masked" if settings.secure else "update")
            clients = await store.clients(conn, federation.id)
            names = {client.id: client.name for client in clients}
            if not settings.secure:  # what was masked cannot be taken out any more
                sent = [m for m in sent if m.client_id not in {client.id for client in clients if client.revoked}]
                if len(sent) < settings.min_clients:
                    raise ValueError("too few clients are left that are not revoked")
            shapes = {name: tuple(shape) for name, shape in federation.told["shapes"].items()}
            place = folder(federation.id)
            payloads = [await blobs.get(f"{place}/{message.told['blob']}") for message in sent]
            known = None
            if settings.secure:
                length = weights.size(shapes)
                masked = {
                    str(m.client_id): secure.of_bytes(payload, length)
                    for m, payload in zip(sent, payloads, strict=True)
                }
                known = await revealed(conn, found, masked)
        base = await blobs.get(f"{place}/{federation.told['weights']}")
        state = await blobs.get(f"{place}/{federation.told['state']}") if "state" in federation.told else None

        def after(combined: Combined) -> _Outcome:
            rejected = [names[sent[i].client_id] for i in combined.rejected]
            return _stepped(combined, rejected, base, state, shapes, settings, clients=len(sent))

        def compute() -> _Outcome:
            if known is None:
                return after(_combined(sent, payloads, shapes, settings))
            return after(_unmasked(known, settings))

        return await asyncio.to_thread(compute)

    async def _forget_round(self, org_id: UUID, found: Round) -> None:
        """Delete the updates of a round that has ended, which say more of the clients' data than the model does, and
        the objects of the version before. Raises Unavailable, for the job to be tried again."""
        service = service_principal(org_id)
        blobs = self._contexts.blobs(service)
        async with self._db.tenant(service) as conn:
            federation = await store.find(conn, found.federation_id)
        for name in federation.told.get("superseded", ()) if federation else ():
            await blobs.delete(f"{folder(found.federation_id)}/{name}")
        await blobs.delete_prefix(f"{folder(found.federation_id)}/rounds/{found.id}")


def folder(federation_id: UUID) -> str:
    """Where a federation's objects lie."""
    return f"federations/{federation_id}"


def spent(settings: FederationSettings, rounds: int) -> float | None:
    """Epsilon after so many rounds; None without noise."""
    if settings.noise_multiplier is None:
        return None
    return privacy.epsilon(noise_multiplier=settings.noise_multiplier, rounds=rounds, delta=settings.delta)


def _combined(
    sent: Sequence[Message], payloads: Sequence[bytes], shapes: weights.Shapes, settings: FederationSettings
) -> Combined:
    return aggregation.combine(
        np.stack([weights.flat(weights.of_npz(payload), shapes) for payload in payloads]),
        rule=settings.rule,
        counts=None if settings.noise_multiplier else [message.told["samples"] for message in sent],
        attackers=settings.attackers,
        clip_norm=settings.clip_norm,
        noise_multiplier=settings.noise_multiplier or 0.0,
    )


def _unmasked(known: secure.Revealed, settings: FederationSettings) -> Combined:
    """The mean of what the survivors sent, with noise where it is set; clients have clipped, nobody else can."""
    bound, clients = cast(float, settings.clip_norm), len(known.masked)
    total = secure.dequantised(secure.unmasked_sum(known), bound=bound, clients=len(known.keys))
    step = (total / clients).astype(np.float32)
    if settings.noise_multiplier:
        step = aggregation.noisy(step, clip_norm=bound, noise_multiplier=settings.noise_multiplier, clients=clients)
    return Combined(step=step, rejected=[], clipped=0)


def _stepped(
    combined: Combined,
    rejected: list[str],
    base: bytes,
    state: bytes | None,
    shapes: weights.Shapes,
    settings: FederationSettings,
    *,
    clients: int,
) -> _Outcome:
    step, rate, moments = combined.step, settings.server_rate, None
    if settings.optimizer == "fedadam":
        before = weights.of_npz(state) if state else None
        step, moments = aggregation.adam_step(step, Adam(m=before["m"], v=before["v"]) if before else None, rate=rate)
        rate = 1.0
    new = aggregation.moved(weights.flat(weights.of_npz(base), shapes), step, rate=rate)
    return _Outcome(
        weights=weights.to_npz(weights.shaped(new, shapes)),
        state=weights.to_npz({"m": moments.m, "v": moments.v}) if moments else None,
        result={
            "clients": clients,
            "clipped": combined.clipped,
            "rejected": rejected,
            "step_norm": rate * float(np.linalg.norm(step.astype(np.float64))),
        },
    )


async def _able(conn: Connection, found: Round) -> set[UUID]:
    return {client.id for client in await store.clients(conn, found.federation_id) if not client.revoked}


async def _awaited(conn: Connection, found: Round) -> set[UUID]:
    """Who is to answer in the phase; who was revoked cannot, and counts as one that left."""
    able = await _able(conn, found)
    if found.phase in _BEFORE:
        return able & await store.senders(conn, found.id, _BEFORE[found.phase])
    return able


async def _needed(conn: Connection, found: Round, settings: FederationSettings) -> int:
    """Answers without which a phase cannot go on."""
    if found.phase in _BEFORE:
        keys = len(await store.senders(conn, found.id, "keys"))
        threshold = secure.threshold_of(keys)
        return threshold if found.phase == "unmask" else max(settings.min_clients, threshold)
    return settings.min_clients


async def _failed(conn: Connection, found: Round, code: str) -> None:
    await store.move_round(
        conn,
        found.id,
        state="failed",
        phase=found.phase,
        deadline=found.deadline,
        told={**found.told, "error_code": code},
    )


async def _audit(conn: Connection, org_id: UUID, action: str, federation_id: UUID) -> None:
    await ledgers.add_audit(
        conn, org_id=org_id, user_id=None, request_id="round", action=action, target=f"federation:{federation_id}"
    )
