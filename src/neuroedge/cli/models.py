"""neuroedge models: list, pull, verify."""

import typer

app = typer.Typer(help="The model catalogue and the store of weight files.", no_args_is_help=True)
_IDS = typer.Argument(None, help="Models by id; the default set when none is named.")


@app.command("list")
def list_models() -> None:
    """Show every model of the catalogue and whether it is in the store."""
    from rich.console import Console
    from rich.table import Table

    from neuroedge.bootstrap import catalogue_of
    from neuroedge.cli.output import readable_errors, settings_or_exit

    with readable_errors():
        catalogue = catalogue_of(settings_or_exit())
        chosen = {entry.id for entry in catalogue.defaults()}
        table = Table("id", "role", "runtime", "MB", "licence", "default", "in the store")
        for entry in catalogue:
            table.add_row(
                entry.id,
                entry.role,
                entry.runtime,
                f"{entry.bytes / 1e6:.1f}",
                entry.licence,
                "yes" if entry.id in chosen else "",
                "yes" if catalogue.present(entry) else "no",
            )
        console = Console()
        console.print(table)
        console.print(f"store: {catalogue.store}", soft_wrap=True)


@app.command()
def pull(ids: list[str] = _IDS) -> None:
    """Fetch what is missing or changed; goes on where an interrupted pull stopped."""
    from neuroedge.bootstrap import catalogue_of
    from neuroedge.cli.output import readable_errors, settings_or_exit

    with readable_errors():
        settings = settings_or_exit()
        catalogue = catalogue_of(settings)
        catalogue.store.mkdir(parents=True, exist_ok=True)
        for entry in [catalogue.entry(i) for i in ids] if ids else catalogue.defaults():
            fetched = catalogue.pull(entry, report=lambda line: typer.echo(f"  {line}"))
            kept = "already there, verified" if entry.file else f"ships with its library ({entry.runtime})"
            typer.echo(f"{entry.id}: {'pulled and verified' if fetched else kept}")


@app.command()
def verify(ids: list[str] = _IDS) -> None:
    """Check every file's sha256; exit status 1 when one is missing or changed."""
    from neuroedge.bootstrap import catalogue_of
    from neuroedge.cli.output import readable_errors, settings_or_exit

    with readable_errors():
        catalogue = catalogue_of(settings_or_exit())
        wrong = 0
        for entry in [catalogue.entry(i) for i in ids] if ids else catalogue.defaults():
            states = catalogue.states(entry)
            for name, state in states.items():
                if state != "ok":
                    wrong += 1
                    path = catalogue.folder(entry) / name
                    typer.echo(f"{entry.id}: {path} is {state}; run `neuroedge models pull {entry.id}`", err=True)
            if all(state == "ok" for state in states.values()):
                typer.echo(f"{entry.id}: ok ({len(states)} files)")
    raise typer.Exit(1 if wrong else 0)
