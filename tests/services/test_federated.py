"""Rounds over a real database and folder: cut off while aggregating, moved on twice, left over by a crash."""

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from neuroedge.contract.errors import Conflict, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.infra.queue import JobQueue
from neuroedge.kit.federated import signing, weights
from neuroedge.services import housekeeping
from neuroedge.services.federated import Federations
from neuroedge.services.federated_drafts import (
    FederationClientDraft,
    FederationDraft,
    FederationMessageDraft,
)
from neuroedge.services.federated_rounds import FederatedRounds, folder
from neuroedge.services.run_engine import Contexts
from neuroedge.stores import federated as store
from neuroedge.stores.federated import Client, Phase
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.services.test_files import contexts_over
from tests.stores.conftest import new_principal

pytestmark = pytest.mark.anyio


class _Jobs(JobQueue):
    """Keeps what was ordered, and runs nothing."""

    def __init__(self) -> None:
        self.ordered: list[Any] = []

    async def defer(self, conn: Any, task: str, **options: Any) -> int:
        """Count."""
        self.ordered.append(options)
        return len(self.ordered)


def _parts(db: Database, folder: Path, jobs: _Jobs | None = None) -> tuple[Federations, FederatedRounds, Contexts]:
    contexts = contexts_over(db, folder)
    rounds = FederatedRounds(db=db, contexts=contexts, queue=jobs or _Jobs())
    return Federations(db=db, contexts=contexts, rounds=rounds), rounds, contexts


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def _opened(
    federations: Federations, caller: Principal, *, clients: int, **settings: Any
) -> tuple[UUID, UUID, list[Client], list[bytes]]:
    """A federation with an open round, its clients and their private keys."""
    draft = FederationDraft.model_validate(
        {"name": "n", "weights": {"arrays": {"w": [0.0, 0.0]}}, "settings": settings}
    )
    federation = (await federations.create(caller, draft, request_id="r")).id
    keys = [signing.new_private_key() for _ in range(clients)]
    registered = [
        await federations.register(
            caller,
            federation,
            FederationClientDraft(name=str(i), public_key=_base64(signing.public_key_of(key))),
            request_id="r",
        )
        for i, key in enumerate(keys)
    ]
    opened = (await federations.open_round(caller, federation, request_id="r")).id
    return federation, opened, registered, keys


async def _collected(
    federations: Federations, caller: Principal, *, values: Sequence[float] = (1.0, 3.0), **settings: Any
) -> tuple[UUID, UUID]:
    """A federation of two clients with a round that has their updates, each of one value: both unless told."""
    federation, opened, clients, keys = await _opened(federations, caller, clients=2, **settings)
    for client, key, value in zip(clients, keys, values, strict=False):
        await federations.submit(caller, federation, opened, _update(federation, opened, client, key, value))
    return federation, opened


def _update(federation: UUID, opened: UUID, client: Client, key: bytes, value: float) -> FederationMessageDraft:
    payload = weights.to_npz({"w": np.full(2, value, np.float32)})
    told = {"client_id": str(client.id), "kind": "update", "samples": 1}
    text = signing.signed_text(federation_id=str(federation), round_id=str(opened), payload=payload, **told)  # type: ignore[arg-type]
    message = {**told, "payload": _base64(payload), "signature": _base64(signing.sign(key, text))}
    return FederationMessageDraft.model_validate(message)


async def test_an_aggregation_cut_off_goes_on_with_the_next_worker(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its result was stored: the round says aggregating, the model is as it was; then it is done once."""
    federations, rounds, contexts = _parts(db, tmp_path)
    caller = await new_principal(db)
    noise = {"noise_multiplier": 1.0, "clip_norm": 1.0, "epsilon_budget": 50.0}
    federation, opened = await _collected(federations, caller, **noise)

    async def killed(*args: Any) -> Any:
        raise ConnectionAbortedError

    with monkeypatch.context() as patched:
        patched.setattr(FederatedRounds, "_stored", killed)
        with pytest.raises(ConnectionAbortedError):
            await rounds.advance(caller.org_id, opened)
    assert (await federations.round(caller, federation, opened)).state == "aggregating"
    assert (await federations.get(caller, federation)).version == 0
    await rounds.advance(caller.org_id, opened)
    after = await federations.get(caller, federation)
    assert ((await federations.round(caller, federation, opened)).state, after.version, after.noisy_rounds) == (
        "closed",
        1,
        1,
    )
    _, first = await federations.weights(caller, federation)
    await rounds.advance(caller.org_id, opened)
    again, second = await federations.weights(caller, federation)
    assert (again.version, again.noisy_rounds, second) == (1, 1, first)
    assert await contexts.blobs(caller).count(f"{folder(federation)}/rounds") == 0


async def test_updates_of_a_round_of_too_few_clients_are_deleted(db: Database, tmp_path: Path) -> None:
    """One of two has answered by the deadline: its update goes with the round."""
    federations, rounds, contexts = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened = await _collected(federations, caller, values=[1.0])
    await federations.end(caller, federation, opened, request_id="r")
    await rounds.advance(caller.org_id, opened)
    found = await federations.round(caller, federation, opened)
    assert (found.state, found.told["error_code"]) == ("failed", "too_few_clients")
    assert await contexts.blobs(caller).count(f"{folder(federation)}/rounds") == 0


async def test_a_worker_killed_after_the_round_was_closed_leaves_no_objects(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that is run again deletes the updates and the weights of the version before; the new ones stay."""
    federations, rounds, contexts = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened = await _collected(federations, caller, optimizer="fedadam")

    async def killed(*args: Any) -> None:
        raise ConnectionAbortedError

    with monkeypatch.context() as patched:
        patched.setattr(TenantBlobs, "delete", killed)
        patched.setattr(TenantBlobs, "delete_prefix", killed)
        with pytest.raises(ConnectionAbortedError):
            await rounds.advance(caller.org_id, opened)
    assert (await federations.round(caller, federation, opened)).state == "closed"
    await rounds.advance(caller.org_id, opened)
    assert await contexts.blobs(caller).count(folder(federation)) == 2
    found, data = await federations.weights(caller, federation)
    assert found.version == 1
    assert weights.of_npz(data)["w"].tolist() != [0.0, 0.0]


async def test_an_update_that_is_not_kept_leaves_no_object(db: Database, tmp_path: Path) -> None:
    """Sent twice, and sent after the round had ended; versions that were replaced are gone, too."""
    federations, rounds, contexts = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened, [client, _], [key, _] = await _opened(federations, caller, clients=2, min_clients=1)
    sent = _update(federation, opened, client, key, 1.0)
    assert not (await federations.submit(caller, federation, opened, sent)).known
    assert (await federations.submit(caller, federation, opened, sent)).known
    assert await contexts.blobs(caller).count(f"{folder(federation)}/rounds") == 1
    await federations.end(caller, federation, opened, request_id="r")
    await rounds.advance(caller.org_id, opened)
    with pytest.raises(Conflict):
        await federations.submit(caller, federation, opened, _update(federation, opened, client, key, 2.0))
    assert await contexts.blobs(caller).count(folder(federation)) == 1


async def test_two_workers_at_once_change_the_model_once(db: Database, tmp_path: Path) -> None:
    """A job given to another worker while the first one still computes."""
    federations, rounds, _ = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened = await _collected(federations, caller)
    await asyncio.gather(*(rounds.advance(caller.org_id, opened) for _ in range(2)), return_exceptions=False)
    found, data = await federations.weights(caller, federation)
    assert found.version == 1
    assert weights.of_npz(data)["w"].tolist() == [2.0, 2.0]


async def test_a_revoked_clients_update_has_no_part(db: Database, tmp_path: Path) -> None:
    """Revoked after it was sent: too few are left, the round waits for others, and fails when it is ended."""
    federations, rounds, _ = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened = await _collected(federations, caller)
    client = (await federations.clients(caller, federation))[0]
    await federations.revoke(caller, federation, client.id, request_id="r")
    await rounds.advance(caller.org_id, opened)
    assert (await federations.round(caller, federation, opened)).state == "collecting"
    await federations.end(caller, federation, opened, request_id="r")
    await rounds.advance(caller.org_id, opened)
    found = await federations.round(caller, federation, opened)
    assert (found.state, found.told["error_code"]) == ("failed", "too_few_clients")


async def test_an_update_whose_storing_was_not_confirmed_is_kept(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database committed, and its answer was lost: the client sends again, and the round has the update."""
    federations, rounds, contexts = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened, [client, _], [key, _] = await _opened(federations, caller, clients=2, min_clients=1)
    sent, keep = _update(federation, opened, client, key, 1.0), federations._keep

    async def unconfirmed(*args: Any) -> Any:
        await keep(*args)
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(federations, "_keep", unconfirmed)
        with pytest.raises(Unavailable):
            await federations.submit(caller, federation, opened, sent)
    assert (await federations.submit(caller, federation, opened, sent)).known
    assert await contexts.blobs(caller).count(f"{folder(federation)}/rounds") == 1
    await federations.end(caller, federation, opened, request_id="r")
    await rounds.advance(caller.org_id, opened)
    assert (await federations.round(caller, federation, opened)).state == "closed"


async def test_updates_that_could_not_be_deleted_are_deleted_by_the_jobs_next_attempt(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was away for a moment when the round ended: the job fails, and the queue tries it again."""
    federations, rounds, contexts = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened = await _collected(federations, caller)

    async def away(*args: Any) -> Any:
        raise Unavailable("the objects could not be deleted")

    with monkeypatch.context() as broken:
        broken.setattr(TenantBlobs, "delete_prefix", away)
        with pytest.raises(Unavailable):
            await rounds.advance(caller.org_id, opened)
    assert (await federations.round(caller, federation, opened)).state == "closed"
    await rounds.advance(caller.org_id, opened)
    assert await contexts.blobs(caller).count(f"{folder(federation)}/rounds") == 0


async def test_revoking_the_last_client_that_is_awaited_lets_the_round_be_combined(
    db: Database, tmp_path: Path
) -> None:
    """The round is looked at now, not at its deadline."""
    jobs = _Jobs()
    federations, rounds, _ = _parts(db, tmp_path, jobs)
    caller = await new_principal(db)
    federation, opened = await _collected(federations, caller, values=[1.0], min_clients=1)
    silent = next(client for client in await federations.clients(caller, federation) if client.name == "1")
    jobs.ordered.clear()
    await federations.revoke(caller, federation, silent.id, request_id="r")
    assert [(job["args"]["round_id"], job["run_at"]) for job in jobs.ordered] == [(str(opened), None)]
    await rounds.advance(caller.org_id, opened)
    assert (await federations.round(caller, federation, opened)).state == "closed"
    await federations.revoke(caller, federation, silent.id, request_id="r")
    assert len(jobs.ordered) == 1


async def test_a_secure_round_waits_for_no_client_that_was_revoked_in_it(db: Database, tmp_path: Path) -> None:
    """Revoked after its keys were taken, it counts as one that left: the others' phases go on."""
    federations, rounds, _ = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, opened, clients, _ = await _opened(
        federations, caller, clients=4, secure=True, clip_norm=1.0, min_clients=3
    )

    async def answered(kind: Phase, senders: Sequence[Client]) -> str:
        async with db.tenant(caller) as conn:
            for one in senders:
                await store.add_message(
                    conn, org_id=caller.org_id, round_id=opened, client_id=one.id, kind=kind, told={}
                )
        await rounds.advance(caller.org_id, opened)
        return (await federations.round(caller, federation, opened)).phase

    assert await answered("keys", clients) == "shares"
    assert await answered("shares", clients[:3]) == "shares"
    await federations.revoke(caller, federation, clients[3].id, request_id="r")
    assert await answered("shares", ()) == "masked"
    assert await answered("masked", clients[:2]) == "masked"


async def test_objects_of_federations_that_are_gone_are_swept(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a crash left is deleted; what has a row stays."""
    federations, _, contexts = _parts(db, tmp_path)
    caller = await new_principal(db)
    federation, _ = await _collected(federations, caller)
    left = f"federations/{new_id()}"
    await contexts.blobs(caller).put(f"{left}/x", b"left")
    monkeypatch.setattr(housekeeping, "_ORPHAN_S", -1)
    assert await federations.sweep() == 1
    assert await contexts.blobs(caller).count(left) == 0
    assert await contexts.blobs(caller).count(folder(federation)) == 3
