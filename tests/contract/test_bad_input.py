"""Generated wrong inputs for every engine, over HTTP."""

from neuroedge.services.engines import discover
from neuroedge.testing.contract import BadInputContract


class TestBadInput(BadInputContract):
    """Of every engine of the platform."""

    engines = tuple(discover())
