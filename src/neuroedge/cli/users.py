"""neuroedge users: create."""

import typer

app = typer.Typer(help="User accounts.", no_args_is_help=True)
_ORGANISATION_CHARACTERS = 200
"""Most the table organisations takes."""


@app.callback()
def _group() -> None:
    """User accounts."""


@app.command()
def create(
    username: str = typer.Argument(help="3 to 64 letters, digits, '.', '_' or '-'."),
    email: str = typer.Argument(help="The user's email address."),
    password: str = typer.Option(
        ...,
        prompt=True,
        hide_input=True,
        confirmation_prompt=True,
        envvar="NEUROEDGE_PASSWORD",
        help="8 characters or more.",
    ),
    organisation: str = typer.Option(
        None, help="Name of the user's new organisation, 1 to 200 characters; the user's name when not given."
    ),
    admin: bool = typer.Option(False, "--admin", help="An operator of the whole installation."),
) -> None:
    """Create a user who owns a new organisation, whether or not self-registration is on."""
    import asyncio

    from pydantic import ValidationError

    from neuroedge.bootstrap import open_platform
    from neuroedge.cli.output import readable_errors, settings_or_exit
    from neuroedge.contract.principal import Principal
    from neuroedge.http.routes.auth import RegisterIn

    try:
        body = RegisterIn(username=username, email=email, password=password)
    except ValidationError as error:
        for item in error.errors():
            typer.echo(f"error: {item['loc'][0]}: {item['msg']}", err=True)
        raise typer.Exit(2) from error
    if organisation is not None and not 1 <= len(organisation.strip()) <= _ORGANISATION_CHARACTERS:
        typer.echo(f"error: organisation: expected 1 to {_ORGANISATION_CHARACTERS} characters", err=True)
        raise typer.Exit(2)

    async def run() -> Principal:
        async with open_platform(settings_or_exit(), worker=False) as platform:
            return await platform.accounts.create(
                username=body.username,
                email=body.email,
                password=body.password,
                admin=admin,
                organisation=organisation and organisation.strip(),
                request_id="cli",
            )

    with readable_errors():
        caller = asyncio.run(run())
    typer.echo(f"user {caller.username} ({caller.user_id}) owns organisation {caller.org_id}")
