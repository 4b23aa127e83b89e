"""neuroedge keys: new, rewrap, rotate."""

from typing import TYPE_CHECKING
from uuid import UUID

import typer

if TYPE_CHECKING:
    from neuroedge.http.platform import Platform
    from neuroedge.services.keys import Rewrapped

app = typer.Typer(help="Master key and organisations' keys.", no_args_is_help=True)
_LOOK_EVERY_S = 1.0


@app.command()
def new() -> None:
    """Print a new master key, for NEUROEDGE_MASTER_KEY."""
    from neuroedge.infra.vault import new_master_key

    typer.echo(new_master_key())


@app.command()
def rewrap() -> None:
    """Wrap every organisation's keys by the present master key; those of NEUROEDGE_MASTER_KEYS_FORMER still unwrap.

    Exit status 1 when some could not be: they are named, and the rest is done. Run it again after mending that.
    """
    import asyncio

    from neuroedge.bootstrap import open_platform
    from neuroedge.cli.output import readable_errors, settings_or_exit

    async def run() -> "Rewrapped":
        async with open_platform(settings_or_exit(), worker=False) as platform:
            return await platform.keys.rewrap()

    with readable_errors():
        done = asyncio.run(run())
    typer.echo(f"keys of {done.count} organisations are wrapped by the present master key")
    for org_id, why in done.failed.items():
        typer.echo(f"error: organisation {org_id}: {why}", err=True)
    if done.failed:
        typer.echo("hint: name the master key they were wrapped by in NEUROEDGE_MASTER_KEYS_FORMER", err=True)
    raise typer.Exit(1 if done.failed else 0)


@app.command()
def rotate(
    organisation: str = typer.Option(None, help="Id of one organisation; all of them when not given."),
    wait: bool = typer.Option(True, help="Show the progress until it is done; the work goes on without."),
) -> None:
    """Give organisations a new content key and seal what they have stored anew. A worker does it, in the background."""
    import asyncio

    from neuroedge.bootstrap import open_platform
    from neuroedge.cli.output import readable_errors, settings_or_exit

    try:
        org_id = UUID(organisation) if organisation else None
    except ValueError as error:
        typer.echo("error: organisation: expected an id", err=True)
        raise typer.Exit(2) from error

    async def run() -> None:
        async with open_platform(settings_or_exit(), worker=False) as platform:
            queued = await platform.keys.rotate(org_id, operator=None, request_id="cli")
            typer.echo(f"rotation of {len(queued)} organisations' keys queued")
            if wait:
                await _follow(platform, {standing.org_id for standing in queued})

    with readable_errors():
        asyncio.run(run())


async def _follow(platform: "Platform", chosen: set[UUID]) -> None:
    import asyncio

    shown = None
    while True:
        under_way = [s for s in await platform.keys.standings() if s.org_id in chosen and s.rotation is not None]
        line = (
            f"{len(chosen) - len(under_way)} of {len(chosen)} done,"
            f" {sum(s.resealed for s in under_way)} of {sum(s.to_reseal for s in under_way)} values sealed anew"
        )
        if line != shown:
            typer.echo(line)
            shown = line
        if not under_way:
            return
        await asyncio.sleep(_LOOK_EVERY_S)
