"""How commands speak: settings or a readable error, and one way to fail."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from neuroedge.settings import Settings


def settings_or_exit() -> "Settings":
    """The settings, or an exit that names each wrong variable."""
    from pydantic import ValidationError

    from neuroedge.settings import load_settings

    try:
        return load_settings()
    except ValidationError as error:
        for item in error.errors():
            typer.echo(f"error: setting {'.'.join(map(str, item['loc']))}: {item['msg']}", err=True)
        raise typer.Exit(2) from error


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn our own errors, and files and folders that cannot be used, into two lines on stderr and exit status 1."""
    from neuroedge.contract.errors import NeuroEdgeError

    try:
        yield
    except NeuroEdgeError as error:
        typer.echo(f"error: {error.detail}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        raise  # whoever reads our output has gone; typer ends quietly
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}", err=True)
        if error.filename:
            typer.echo(
                "hint: check its permissions and the free space, or choose other folders with NEUROEDGE_DATA_DIR and"
                " NEUROEDGE_MODELS_DIR",
                err=True,
            )
        sys.exit(1)
