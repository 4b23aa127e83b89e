"""neuroedge serve and worker."""

import asyncio
import gc
import os
import signal
import socket
import sys
from types import FrameType

from neuroedge.cli.output import readable_errors, settings_or_exit

_GRACE_S = 10
_PONG_S = 120.0


def serve(*, host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or SIGINT; prints the address on stdout once requests are answered."""
    # What importing makes stays: the collector would walk through it again and again, for nothing.
    gc.disable()
    import uvicorn

    from neuroedge.bootstrap import build_app
    from neuroedge.infra.telemetry import configure_logging
    from neuroedge.services.live.options import MAX_MESSAGE_BYTES

    settings = settings_or_exit()
    if host:  # of gRPC too, which is on the same address
        settings = settings.model_copy(update={"host": host})
    configure_logging(level=settings.log_level, fmt=settings.log_format)
    listener = bind(settings.host, settings.port if port is None else port)
    with readable_errors():
        app = build_app(settings)
    gc.freeze()
    gc.enable()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        # A client that sends faster than it is heard answers a ping only after what it has sent before.
        ws_ping_timeout=_PONG_S,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
    )

    class Server(uvicorn.Server):
        """Tells streams that would never end by themselves to end, as soon as the signal to stop comes."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.stopping = True
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Let live sessions say what they still have to say: closing the sockets would cut them off."""
            if (platform := getattr(app.state, "platform", None)) is not None:
                await platform.live.stop()
            await super().shutdown(sockets)

    server = Server(config)
    app.state.on_ready = lambda: _announce(listener)
    with readable_errors():
        try:
            server.run(sockets=[listener])
        except SystemExit:  # how uvicorn ends when the lifespan did not start
            if (error := getattr(app.state, "startup_error", None)) is not None:
                raise error from None
            raise


def _announce(listener: socket.socket) -> None:
    """One line on stdout, which scripts wait for, once requests are answered."""
    # What start-up made stays: the collector need not walk through it in the middle of requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"NeuroEdge is ready at {url} (API pages: {url}/docs)", flush=True)  # noqa: T201


def worker() -> None:
    """Run jobs until SIGTERM or SIGINT."""
    from neuroedge.bootstrap import open_platform
    from neuroedge.infra.telemetry import configure_logging

    settings = settings_or_exit()
    configure_logging(level=settings.log_level, fmt=settings.log_format)

    async def run() -> None:
        told_to_stop = _told_to_stop()
        async with open_platform(settings, worker=True):
            print(f"NeuroEdge worker {os.getpid()} is waiting for jobs", flush=True)  # noqa: T201
            await told_to_stop.wait()

    with readable_errors():
        asyncio.run(run())
    sys.stdout.flush()
    os._exit(0)  # everything is stored: the thread of a computation that hangs must not keep the process


def _told_to_stop() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT, also during the start; the second one ends the process at once, as usual."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def tell() -> None:
        told.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, tell)
    return told


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; exits with the remedy when the port is taken."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        print(f"error: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)  # noqa: T201
        print("hint: stop what uses the port, or set NEUROEDGE_PORT", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    return listener
