"""The llama.cpp bindings, loaded so that their threads wait for each other asleep."""

import os
from types import ModuleType
from typing import Final

_WAIT: Final = "OMP_WAIT_POLICY"


def llama_library() -> ModuleType:
    """The module `xllamacpp`.

    Its OpenMP threads meet a few hundred times per token. By default the first to come spins for milliseconds until
    the last has come, and when that one waits for a core (another process, this interpreter) tokens take ten times as
    long. libgomp reads its setting once, when it is loaded; the other libraries' own copies are left as they are.
    """
    given = os.environ.get(_WAIT)
    os.environ.setdefault(_WAIT, "PASSIVE")
    try:
        import xllamacpp
    finally:
        if given is None:
            del os.environ[_WAIT]
    module: ModuleType = xllamacpp
    return module
