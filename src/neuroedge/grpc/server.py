"""The gRPC server: BrainService and the health service on one port, with TLS where certificates are given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # missing in the stubs

from neuroedge.contract.errors import InvalidInput, Unavailable
from neuroedge.grpc.brain import Brain
from neuroedge.grpc.brain_pb2 import DESCRIPTOR, AnalyzeFocusRequest, AnalyzeSpeechRequest, RunInferenceRequest
from neuroedge.grpc.calls import Gate

log = structlog.get_logger("neuroedge.grpc")
SERVICE: Final = DESCRIPTOR.services_by_name["BrainService"].full_name
GRACE_S: Final = 10.0
"""Calls under way have so long to end."""
_CALLS_AT_ONCE: Final = 100
"""More are refused: each may hold a message of the largest size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files of the server; with `client_ca`, clients must show a certificate of that authority."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class GrpcServer:
    """Listens from `start` to `stop`."""

    def __init__(self, *, gate: Gate, brain: Brain, max_message_bytes: int) -> None:
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=_CALLS_AT_ONCE,
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
            ],
        )
        handlers = {
            "AnalyzeSpeech": gate.handler("AnalyzeSpeech", AnalyzeSpeechRequest, brain.analyze_speech),
            "RunInference": gate.handler("RunInference", RunInferenceRequest, brain.run_inference, prediction=True),
            "AnalyzeFocus": gate.handler("AnalyzeFocus", AnalyzeFocusRequest, brain.analyze_focus, prediction=True),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, host: str, port: int, *, certificates: Certificates | None = None) -> int:
        """Listen; the port, which is a free one for 0. Raises Unavailable, InvalidInput for unreadable certificates."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificates is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, _credentials(certificates))
        except RuntimeError as error:
            raise Unavailable(
                f"gRPC cannot listen on {address}",
                hint="stop what uses the port, set NEUROEDGE_GRPC_PORT, and check the certificates",
            ) from error
        await self._server.start()
        for name in (OVERALL_HEALTH, SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("grpc_listening", host=host, port=bound, tls=certificates is not None)
        return int(bound)

    async def stop(self) -> None:
        """Tell health checks, take no more calls, and let those under way end within GRACE_S."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    try:
        pair = (certificates.key.read_bytes(), certificates.cert.read_bytes())
        authority = certificates.client_ca.read_bytes() if certificates.client_ca else None
    except OSError as error:
        raise InvalidInput(
            f"a certificate of the gRPC server cannot be read: {error.filename}",
            hint="check NEUROEDGE_GRPC_TLS_CERT, NEUROEDGE_GRPC_TLS_KEY and NEUROEDGE_GRPC_TLS_CLIENT_CA",
        ) from error
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)
