"""One table over all engines: every engine keeps the contract, as third parties' engines do."""

import subprocess
import sys

from neuroedge.services.engines import discover, group
from neuroedge.testing.contract import AnyEngine, EngineContract

CATALOGUE = {
    "language": "artifact chat classification language_detection moderation reasoning routing simplification"
    " summarization translation",
    "knowledge": "embedding index knowledge memory ranking search",
    "speech": "articulation audio diarization emotion fluency prosody speaker synthesis transcription",
    "vision": "document ocr vision",
    "learning": "cultural_context curriculum difficulty engagement focus grade_adaptation learning_path"
    " learning_preference",
    "decision": "deep_learning federated forecasting recommendation reinforcement simulation",
}
"""What NeuroEdge promises: 42 engines in six groups."""


def test_the_catalogue_is_whole() -> None:
    """Each engine that is promised is there, in its group, and no other."""
    found: dict[str, set[str]] = {}
    for engine in discover():
        if engine.__module__.startswith("neuroedge."):
            found.setdefault(group(engine), set()).add(engine.name)
    assert found == {name: set(engines.split()) for name, engines in CATALOGUE.items()}
    assert sum(map(len, found.values())) == 42


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
