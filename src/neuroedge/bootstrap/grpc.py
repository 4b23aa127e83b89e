"""The gRPC server beside HTTP, where a port is set for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from neuroedge.contract.errors import InvalidInput
from neuroedge.http.platform import Platform


@asynccontextmanager
async def grpc_beside(platform: Platform) -> AsyncIterator[None]:
    """Answer gRPC calls within the block. Raises Unavailable when the port is taken, InvalidInput for TLS settings."""
    settings = platform.settings
    if settings.grpc_port is None:
        yield
        return
    # Imported here: who does not serve gRPC need not load its library.
    from neuroedge.grpc.brain import Brain
    from neuroedge.grpc.calls import Gate, Quotas
    from neuroedge.grpc.server import Certificates, GrpcServer

    gate = Gate(
        tokens=platform.tokens,
        api_keys=platform.api_keys,
        limits=platform.limits,
        quotas=Quotas(engines=settings.requests_per_minute, predictions=settings.ml_requests_per_minute),
        registry=platform.metrics.registry,
        longest_s=settings.request_timeout_s,
    )
    server = GrpcServer(
        gate=gate,
        brain=Brain(runner=platform.runner, learners=platform.learners),
        max_message_bytes=settings.max_body_bytes,
    )
    cert, key, authority = settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_client_ca
    if (cert is None) != (key is None) or (cert is None and authority is not None):
        raise InvalidInput(
            "gRPC with TLS needs a certificate and its key",
            hint="set both NEUROEDGE_GRPC_TLS_CERT and NEUROEDGE_GRPC_TLS_KEY",
        )
    certificates = Certificates(cert=cert, key=key, client_ca=authority) if cert and key else None
    await server.start(settings.host, settings.grpc_port, certificates=certificates)
    try:
        yield
    finally:
        await server.stop()
