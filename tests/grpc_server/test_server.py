"""The server in this process with engines that are told what to say: callers, limits, deadlines, TLS, stopping."""

import asyncio
import contextlib
import datetime
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from neuroedge.bootstrap.grpc import grpc_beside
from neuroedge.contract import scope
from neuroedge.contract.errors import InvalidInput, NotFound, Unauthenticated, Unavailable
from neuroedge.contract.principal import ROLE_PERMISSIONS, Principal
from neuroedge.grpc.brain import Brain
from neuroedge.grpc.brain_pb2 import RunInferenceRequest
from neuroedge.grpc.calls import Gate, Quotas
from neuroedge.grpc.server import SERVICE, Certificates, GrpcServer
from neuroedge.infra.limits import Quota
from neuroedge.infra.tokens import AccessTokens
from neuroedge.settings import Settings
from tests.fakes import make_principal
from tests.grpc_server.client import BrainClient, problem_of

pytestmark = pytest.mark.anyio
TOKENS = AccessTokens("a secret of at least thirty-two characters")


@pytest.fixture(scope="module", autouse=True)
async def one_loop() -> asyncio.AbstractEventLoop:
    """All tests here share an event loop, as servers of a process do: grpc has one queue for the process, and what
    it tells late of a server whose loop is closed fails the test that runs then."""
    return asyncio.get_running_loop()


class _Said(BaseModel):
    method: str = "m"
    heard: dict[str, Any] = {}


class _Platform:
    """What the server asks."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any], Principal, str, float]] = []
        self.answer: Callable[[], Awaitable[None]] = self._at_once
        self.left = {"engines": 1000, "ml": 1000}
        self.keys: dict[str, Principal] = {}
        self.addresses: list[str] = []
        self.registry = CollectorRegistry()

    async def _at_once(self) -> None:
        """Nothing to wait for."""

    async def run(self, name: str, payload: Any, *, principal: Principal, request_id: str) -> BaseModel:
        """An engine named echo."""
        if name != "echo":
            raise NotFound(f"no engine {name!r}", hint="engines: echo")
        self.calls.append((name, payload, principal, request_id, scope.remaining_s(9999)))
        await self.answer()
        return _Said(heard=payload)

    async def principal(self, key: str, *, address: str) -> Principal:
        """Of an API key."""
        self.addresses.append(address)
        if key not in self.keys:
            raise Unauthenticated("no such API key")
        return self.keys[key]

    async def spend(self, per_minute: int, *key: str) -> Quota:
        """Count down."""
        self.left[key[0]] -= 1
        return Quota(granted=self.left[key[0]] >= 0, limit=per_minute, remaining=0, reset_s=42)

    def server(self, *, max_message_bytes: int = 100_000) -> GrpcServer:
        """Over these."""
        this: Any = self
        gate = Gate(
            tokens=TOKENS,
            api_keys=this,
            limits=this,
            quotas=Quotas(engines=6000, predictions=1200),
            registry=self.registry,
            longest_s=600,
        )
        brain = Brain(runner=this, learners=this)
        return GrpcServer(gate=gate, brain=brain, max_message_bytes=max_message_bytes)


@contextlib.asynccontextmanager
async def _listening(platform: _Platform, **options: Any) -> AsyncIterator[int]:
    server = platform.server(**options)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.stop()


def _client(port: int, *, token: str | None = None) -> BrainClient:
    return BrainClient(grpc.insecure_channel(f"127.0.0.1:{port}"), token=token)


def _token(principal: Principal) -> str:
    return TOKENS.issue(principal, now=datetime.datetime.now(datetime.UTC), ttl_s=600)


def _echo(**fields: Any) -> RunInferenceRequest:
    struct = Struct()
    struct.update(fields)
    return RunInferenceRequest(model_type="echo", input=struct)


async def _refused(client: BrainClient, *args: Any, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        await asyncio.to_thread(client.call, *args, **options)
    return caught.value


async def test_a_known_caller_is_answered() -> None:
    """By access token or API key; the tenant is the token's, the request id comes back."""
    platform, caller = _Platform(), make_principal()
    platform.keys["sk-ne-1"] = caller
    async with _listening(platform) as port:
        with _client(port, token=_token(caller)) as client:
            made = await asyncio.to_thread(client.call, "RunInference", _echo(orgId="other", n=3), x_request_id="abc")
            assert (made.engine, made.method, made.request_id, made.reliable) == ("echo", "m", "abc", True)
            assert client.initial["x-request-id"] == "abc"
            await asyncio.to_thread(client.call, "RunInference", _echo(), x_request_id="not valid; at all")
        with _client(port, token="sk-ne-1") as client:
            await asyncio.to_thread(client.call, "RunInference", _echo())
        with _client(port) as client:
            await asyncio.to_thread(client.call, "RunInference", _echo(), x_api_key="sk-ne-1")
    assert [(name, principal.org_id) for name, _, principal, _, _ in platform.calls] == [("echo", caller.org_id)] * 4
    assert platform.calls[0][1] == {"org_id": "other", "n": 3}
    assert platform.calls[1][3] != "not valid; at all"
    assert platform.addresses == ["ipv4:127.0.0.1"] * 2
    seconds = platform.registry.get_sample_value(
        "neuroedge_grpc_request_seconds_count", {"method": "RunInference", "status": "OK"}
    )
    assert seconds == 4


@pytest.mark.parametrize("token", [None, "forged.token.here", "sk-ne-unknown"])
async def test_nobody_else_is(token: str | None) -> None:
    """UNAUTHENTICATED, with what to send; no engine runs."""
    platform = _Platform()
    async with _listening(platform) as port:
        with _client(port, token=token) as client:
            for method in ("RunInference", "AnalyzeSpeech", "AnalyzeFocus"):
                error = await _refused(client, method, data=b"")
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert problem_of(error).code == "unauthenticated"
    assert platform.calls == []


async def test_a_large_message_of_a_stranger_is_never_read() -> None:
    """The answer comes before the message is taken in."""
    async with _listening(_Platform(), max_message_bytes=100_000_000) as port:
        with _client(port) as client:
            error = await _refused(client, "RunInference", data=b"x" * 50_000_000)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_reader_may_not_run_engines() -> None:
    """PERMISSION_DENIED."""
    viewer = Principal(
        user_id=make_principal().user_id,
        org_id=make_principal().org_id,
        username="v",
        role="viewer",
        permissions=ROLE_PERMISSIONS["viewer"],
    )
    async with _listening(_Platform()) as port:
        with _client(port, token=_token(viewer)) as client:
            error = await _refused(client, "RunInference", _echo())
    assert (error.code(), problem_of(error).code) == (grpc.StatusCode.PERMISSION_DENIED, "forbidden")


@pytest.mark.parametrize(("limit", "setting"), [("engines", "REQUESTS_PER"), ("ml", "ML_REQUESTS_PER")])
async def test_an_organisation_has_so_many_calls(limit: str, setting: str) -> None:
    """RESOURCE_EXHAUSTED with the seconds to wait, the setting in the hint."""
    platform = _Platform()
    platform.left[limit] = 1
    async with _listening(platform) as port:
        with _client(port, token=_token(make_principal())) as client:
            await asyncio.to_thread(client.call, "RunInference", _echo())
            error = await _refused(client, "RunInference", _echo())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.trailing_metadata())["retry-after"] == "42"
    assert setting in problem_of(error).hint


async def test_a_message_over_the_limit_is_refused() -> None:
    """RESOURCE_EXHAUSTED by the library; the next call is answered."""
    platform = _Platform()
    async with _listening(platform, max_message_bytes=10_000) as port:
        with _client(port, token=_token(make_principal())) as client:
            error = await _refused(client, "RunInference", _echo(text="x" * 20_000))
            assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)
            await asyncio.to_thread(client.call, "RunInference", _echo())
    assert len(platform.calls) == 1


async def test_bytes_that_are_no_message_are_refused() -> None:
    """INVALID_ARGUMENT, as are fields that are wrong and engines nobody knows."""
    async with _listening(_Platform()) as port:
        with _client(port, token=_token(make_principal())) as client:
            error = await _refused(client, "RunInference", data=b"\xff\xff\xff")
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "RunInferenceRequest" in error.details()
            error = await _refused(client, "RunInference", RunInferenceRequest())
            assert (error.code(), problem_of(error).errors[0].field) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "model_type",
            )
            error = await _refused(client, "RunInference", RunInferenceRequest(model_type="nothing"))
            assert (error.code(), problem_of(error).hint) == (grpc.StatusCode.NOT_FOUND, "engines: echo")
            nan = RunInferenceRequest(model_type="echo")
            nan.input.fields["x"].number_value = float("nan")
            assert (await _refused(client, "RunInference", nan)).code() is grpc.StatusCode.INVALID_ARGUMENT
            long = RunInferenceRequest(model_type="focus", learner_id="x" * 201)
            error = await _refused(client, "RunInference", long)
            assert problem_of(error).errors[0].field == "learner_id"


async def test_the_callers_deadline_travels_with_the_call() -> None:
    """The engine knows how long its answer is waited for, and is cancelled when that is over."""
    platform, ended = _Platform(), asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    async with _listening(platform) as port:
        with _client(port, token=_token(make_principal())) as client:
            await asyncio.to_thread(client.call, "RunInference", _echo(), timeout_s=60)
            await asyncio.to_thread(client.call, "RunInference", _echo(), timeout_s=None)
            platform.answer = never
            # Time enough to reach the engine on a busy machine.
            error = await _refused(client, "RunInference", _echo(), timeout_s=5)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await asyncio.wait_for(ended.wait(), 30)
    # gRPC's time left is measured on two clocks, so it can be some tenths of a second above what was given.
    assert 20 < platform.calls[0][4] < 61
    assert 500 < platform.calls[1][4] <= 600
    assert 0 < platform.calls[2][4] < 6


async def test_a_defect_tells_nothing_internal() -> None:
    """INTERNAL with the request id."""
    platform = _Platform()

    async def breaks() -> None:
        raise RuntimeError("password=secret")

    platform.answer = breaks
    async with _listening(platform) as port:
        with _client(port, token=_token(make_principal())) as client:
            error = await _refused(client, "RunInference", _echo(), x_request_id="abc")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error)
    assert problem_of(error).request_id == "abc"


async def test_a_call_under_way_ends_before_the_server_does() -> None:
    """Stopping waits for it; afterwards nobody listens."""
    platform, begun = _Platform(), asyncio.Event()

    async def slowly() -> None:
        begun.set()
        await asyncio.sleep(0.3)

    platform.answer = slowly
    server = platform.server()
    port = await server.start("127.0.0.1", 0)
    with _client(port, token=_token(make_principal())) as client:
        call = asyncio.create_task(asyncio.to_thread(client.call, "RunInference", _echo()))
        await begun.wait()
        await server.stop()
        assert (await call).engine == "echo"
        error = await _refused(client, "RunInference", _echo(), timeout_s=60)
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_health_needs_no_token() -> None:
    """As load balancers ask for it."""
    async with _listening(_Platform()) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_port_that_is_taken_is_an_error() -> None:
    """Rather than shared with whoever has it."""
    async with _listening(_Platform()) as port:
        with pytest.raises(Unavailable, match=str(port)):
            await _Platform().server().start("127.0.0.1", port)


async def test_tls_by_files(tmp_path: Path) -> None:
    """Clients see the certificate; those who speak plainly, or have none of the authority, get no answer."""
    cert, key = _certificate(tmp_path)
    platform = _Platform()
    server = platform.server()
    port = await server.start("127.0.0.1", 0, certificates=Certificates(cert=cert, key=key, client_ca=cert))
    try:
        trusted = {"root_certificates": cert.read_bytes()}
        own = {"private_key": key.read_bytes(), "certificate_chain": cert.read_bytes()}
        for known, code in ((trusted | own, None), (trusted, grpc.StatusCode.UNAVAILABLE)):
            channel = grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(**known))
            with BrainClient(channel, token=_token(make_principal())) as client:
                if code is None:
                    assert (await asyncio.to_thread(client.call, "RunInference", _echo())).engine == "echo"
                else:
                    assert (await _refused(client, "RunInference", _echo(), timeout_s=60)).code() is code
        with _client(port, token=_token(make_principal())) as client:
            assert (await _refused(client, "RunInference", _echo(), timeout_s=5)).code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )
    finally:
        await server.stop()


async def test_certificates_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """The file and the settings are named."""
    absent = Certificates(cert=tmp_path / "no.pem", key=tmp_path / "no.key")
    with pytest.raises(InvalidInput, match=r"no\.key") as caught:
        await _Platform().server().start("127.0.0.1", 0, certificates=absent)
    assert "GRPC_TLS_CERT" in str(caught.value.hint)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own for localhost, and the key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert, key


def _parts(**settings: Any) -> Any:
    """What bootstrap makes the server of."""
    platform = _Platform()
    return SimpleNamespace(
        settings=Settings(**settings),
        tokens=TOKENS,
        api_keys=platform,
        limits=platform,
        metrics=SimpleNamespace(registry=platform.registry),
        runner=platform,
        learners=platform,
    )


async def test_without_a_port_nothing_listens() -> None:
    """gRPC is off by default; its metrics are not even there."""
    parts = _parts()
    async with grpc_beside(parts):
        assert list(parts.metrics.registry.collect()) == []


async def test_it_listens_where_the_settings_say() -> None:
    """Within the block, on the HTTP server's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with grpc_beside(_parts(grpc_port=port)):
        with _client(port, token=_token(make_principal())) as client:
            assert (await asyncio.to_thread(client.call, "RunInference", _echo())).engine == "echo"


@pytest.mark.parametrize("setting", ["grpc_tls_cert", "grpc_tls_key", "grpc_tls_client_ca"])
async def test_half_of_the_tls_settings_is_told(setting: str, tmp_path: Path) -> None:
    """Rather than plain text where TLS was wanted."""
    with pytest.raises(InvalidInput, match="certificate and its key"):
        async with grpc_beside(_parts(grpc_port=0, **{setting: tmp_path / "a.pem"})):
            raise AssertionError
