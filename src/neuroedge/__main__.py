"""`python -m neuroedge` is the `neuroedge` command."""

from neuroedge.cli.main import app

app(prog_name="neuroedge")
