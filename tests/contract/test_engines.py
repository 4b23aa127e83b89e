"""One table over all engines: every engine keeps the contract, as third parties' engines do."""

import subprocess
import sys

from neuroedge.services.engines import discover, group
from neuroedge.testing.contract import AnyEngine, EngineContract


class TestEngines(EngineContract):
    """Every engine of the platform."""

    engines = tuple(discover())

    def test_it_is_named_as_its_file(self, engine: AnyEngine) -> None:
        """Name = file, below the folder of its group."""
        assert engine.__module__.endswith(f".{engine.name}")
        assert group(engine) in ("language", "knowledge", "speech", "vision", "learning", "decision")


def test_importing_all_engines_loads_no_heavy_library() -> None:
    """Start-up stays light: engines reach libraries through ports only."""
    heavy = ("scipy", "onnxruntime", "ctranslate2", "faster_whisper", "av", "xllamacpp", "torch", "yake", "sklearn")
    code = (
        "import sys; from neuroedge.services.engines import discover; discover();"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
