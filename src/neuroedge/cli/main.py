"""The `neuroedge` command. Heavy imports stand inside the commands: `--help` must be quick."""

import typer

from neuroedge.cli import db, keys, models, users

app = typer.Typer(
    name="neuroedge",
    help="NeuroEdge: one self-hosted AI backend that hears, remembers and answers.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
app.add_typer(models.app, name="models")
app.add_typer(db.app, name="db")
app.add_typer(users.app, name="users")
app.add_typer(keys.app, name="keys")


@app.command()
def serve(
    host: str = typer.Option(None, help="Address to bind; NEUROEDGE_HOST, else 127.0.0.1."),
    port: int = typer.Option(None, min=0, max=65535, help="Port; NEUROEDGE_PORT, else 8080. 0 takes a free one."),
) -> None:
    """Serve the API until stopped; starts the embedded database and cache unless external ones are configured."""
    from neuroedge.cli.serve import serve as run

    run(host=host, port=port)


@app.command()
def worker() -> None:
    """Run queued jobs in a process of its own (with NEUROEDGE_WORKER=external for the server)."""
    from neuroedge.cli.serve import worker as run

    run()


@app.command()
def demo(
    audio: str = typer.Option(None, help="A recording; the sample call when not given."),
    question: list[str] = typer.Option(None, help="A question about it; may be given several times."),
    port: int = typer.Option(
        None, min=0, max=65535, help="Port of the demo's server; NEUROEDGE_PORT, else 8080, else a free one."
    ),
    keep: bool = typer.Option(
        None, "--keep/--no-keep", help="Go on serving after the demo until Ctrl-C; in a terminal that is the default."
    ),
) -> None:
    """Hear a recording, remember it, and answer questions about it, in a running server over HTTP."""
    from neuroedge.cli.demo import demo as run

    raise typer.Exit(run(audio=audio, questions=question or [], port=port, keep=keep))


@app.command()
def mcp(
    url: str = typer.Option("http://127.0.0.1:8080", envvar="NEUROEDGE_URL", help="A running NeuroEdge server."),
    token: str = typer.Option(
        ..., envvar="NEUROEDGE_TOKEN", show_envvar=True, help="API key or access token; better not on the command line."
    ),
) -> None:
    """Speak the Model Context Protocol over stdio, for assistants; a proxy of a running server."""
    from neuroedge.cli.mcp import serve as run

    run(url=url, token=token)


@app.command()
def doctor() -> None:
    """Check the installation: each failure with its remedy; exit status 1 when there is one."""
    from neuroedge.cli.doctor import doctor as run

    raise typer.Exit(run())


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as of

    typer.echo(of("neuroedge"))
