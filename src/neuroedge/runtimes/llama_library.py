"""The llama.cpp bindings, loaded so that their threads do not spin long while they wait for each other."""

import os
from types import ModuleType
from typing import Final

from neuroedge.contract.errors import ModelUnavailable

_SPINS: Final = "GOMP_SPINCOUNT"
_FEW: Final = "2000"
"""Turns of the waiting loop. 135M model, 2 threads on 2 cores: 82 tokens/s alone (90 by the default, 25 without
spinning) and 20 with a busy process beside it (by the default 64 tokens took more than 30 s)."""


def llama_library() -> ModuleType:
    """The module `xllamacpp`.

    Its OpenMP threads meet a few hundred times per token. By default the first to come spins for milliseconds until
    the last has come, and when that one waits for a core (another process, this interpreter) tokens take ten times as
    long. libgomp reads its setting once, when it is loaded; the other libraries' own copies are left as they are. What
    the operator has set, by OMP_WAIT_POLICY or GOMP_SPINCOUNT, holds.

    Raises ModelUnavailable where it cannot be loaded.
    """
    given = os.environ.get(_SPINS)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(_SPINS, _FEW)
    try:
        import xllamacpp
    except ImportError as error:
        # The wheel leaves OpenMP's library to the system, and small images come without it.
        lacking = "install libgomp.so.1 (Debian, Ubuntu: apt-get install libgomp1)"
        hint = lacking if "libgomp" in str(error) else "run `make setup`"
        raise ModelUnavailable(f"llama.cpp does not load: {error}", hint=hint) from error
    finally:
        if given is None:
            os.environ.pop(_SPINS, None)
    module: ModuleType = xllamacpp
    return module
