"""neuroedge db: upgrade, status."""

import typer

app = typer.Typer(help="The database schema.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the schema up to date; does nothing when it is."""
    import asyncio

    from neuroedge.bootstrap import app_password, open_servers, open_vault
    from neuroedge.cli.output import readable_errors, settings_or_exit
    from neuroedge.stores import schema

    async def run() -> schema.SchemaStatus:
        settings = settings_or_exit()
        async with open_servers(settings) as servers:
            return schema.upgrade(
                servers.postgres_owner,
                app_password=app_password(settings, servers.secrets),
                keys=open_vault(settings, servers.secrets),
            )

    with readable_errors():
        typer.echo(f"schema at {asyncio.run(run()).current}")


@app.command()
def status() -> None:
    """Show the schema's version; exit status 1 when it is not the one this NeuroEdge needs."""
    import asyncio

    from neuroedge.bootstrap import open_servers
    from neuroedge.cli.output import readable_errors, settings_or_exit
    from neuroedge.stores import schema

    async def run() -> schema.SchemaStatus:
        async with open_servers(settings_or_exit()) as servers:
            return schema.status(servers.postgres_owner)

    with readable_errors():
        found = asyncio.run(run())
    typer.echo(f"schema at {found.current or 'nothing'}, needs {found.head}")
    if not found.up_to_date:
        typer.echo("hint: run `neuroedge db upgrade`", err=True)
    raise typer.Exit(0 if found.up_to_date else 1)
