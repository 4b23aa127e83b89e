"""The choice of a backend, and that all backends agree on the default encoder's real weights."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes.embedding import backend as module
from neuroedge.runtimes.embedding import calibration, openvino
from neuroedge.runtimes.embedding.backend import Backend, open_backend
from neuroedge.runtimes.embedding.layout import BackendName, Layout, batches
from neuroedge.runtimes.text_encoder import TokenBackend
from tests.runtimes.embedding.tiny_models import table, unit, write_lookup, write_tokenizer

ENCODER = "all-minilm-l6-v2-int8"
TEXTS = [
    "Hello?",
    "And I'm Sheila in Texas.",
    "The kitten sleeps.",
    "A young cat is dozing.",
    "Taxes rose in May.",
    "",
    "what similarity laws must be obeyed when constructing aeroelastic models of heated high speed aircraft .",
    "The boundary layer separates where the pressure rises too fast. " * 6,
    "word " * 400,
    "Zürich – naïve café, 東京 🙂",
]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a tiny ONNX encoder."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_tokenizer(folder)
    write_lookup(folder, table())
    return folder


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[Layout]:
    """What is measured: one worker of two threads is fastest, with 512 tokens at once."""
    measured: list[Layout] = []

    def seconds(backend: Backend, layout: Layout, sample: object) -> float:
        measured.append(layout)
        return (layout.backend == "openvino") + layout.workers + abs(layout.token_budget - 512) / 1000

    monkeypatch.setattr(calibration, "seconds_for", seconds)
    return measured


def chosen(folder: Path, calibrations: Path, *, threads: int = 2, **options: object) -> tuple[str, int, int, int]:
    """Open and close; which backend, workers, threads and budget it was."""
    backend = open_backend("tiny", folder, threads=threads, options=options, calibration_dir=calibrations)
    backend.close()
    return backend.name, backend.workers, backend.threads, backend.token_budget


def test_the_first_load_measures_and_the_next_reads(tiny: Path, tmp_path: Path, races: list[Layout]) -> None:
    """Until the weights, the threads or the options change, or the file is damaged."""
    kept = tmp_path / "calibration"
    best = ("onnxruntime", 1, 2, 512)

    def measured_anew(**arguments: int) -> bool:
        races.clear()
        assert chosen(tiny, kept, **arguments)[1] == 1
        return bool(races)

    assert chosen(tiny, kept) == best
    assert races
    assert not measured_anew()
    assert chosen(tiny, kept) == best
    assert measured_anew(threads=4)
    assert measured_anew(max_tokens=16)
    assert measured_anew()
    write_lookup(tiny, table(seed=1))
    assert measured_anew()
    (kept / "tiny.json").write_text("{")
    assert measured_anew()
    assert not measured_anew()
    assert json.loads((kept / "tiny.json").read_text())["layout"]["token_budget"] == 512


def test_without_a_folder_or_a_choice_nothing_is_measured(tiny: Path, tmp_path: Path, races: list[Layout]) -> None:
    """The default: as many workers as threads, each with one; a model too large for it keeps that too."""
    backend = open_backend("tiny", tiny, threads=2, options={})
    assert (backend.workers, backend.threads) == (2, 1)
    backend.close()
    assert chosen(tiny, tmp_path / "c", threads=1, backend="onnxruntime") == ("onnxruntime", 1, 1, 256)
    assert not races
    assert not (tmp_path / "c").exists()


def test_a_large_model_is_not_measured(
    tiny: Path, tmp_path: Path, races: list[Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take longer than the measuring may."""
    monkeypatch.setattr(module, "LARGEST_CALIBRATED_BYTES", 10)
    assert chosen(tiny, tmp_path / "c")[1:] == (2, 1, 256)
    assert not races


def test_options_override_what_was_measured(tiny: Path, tmp_path: Path, races: list[Layout]) -> None:
    """Each alone, and all."""
    kept = tmp_path / "calibration"
    assert chosen(tiny, kept, token_budget=64) == ("onnxruntime", 1, 2, 64)
    assert chosen(tiny, kept, workers=2, backend="onnxruntime") == ("onnxruntime", 2, 1, 256)
    if openvino.available():
        assert chosen(tiny, kept, backend="openvino")[0] == "openvino"


def test_a_measurement_never_decides_what_the_vectors_are(
    tiny: Path, tmp_path: Path, races: list[Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO and llama.cpp compute otherwise what is rewritten to int8, so only who asks for them gets them."""
    (tiny / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(openvino, "available", lambda: True)
    chosen(tiny, tmp_path / "c", precision="int8")
    assert {layout.backend for layout in races} == {"onnxruntime"}


def test_a_folder_without_a_model_is_reported_with_the_remedy(tmp_path: Path) -> None:
    """An empty folder is no model."""
    with pytest.raises(ModelUnavailable) as caught:
        open_backend("m", tmp_path, threads=1, options={})
    assert "models verify m" in str(caught.value.hint)


@pytest.mark.skipif(not openvino.available(), reason="the extra openvino is not installed")
def test_openvino_reports_nothing_home(tiny: Path, tmp_path: Path) -> None:
    """Importing it would write a client id to the home directory and send it off."""
    code = (
        "import sys; from pathlib import Path; from neuroedge.runtimes.embedding.backend import open_backend\n"
        f"b = open_backend('m', Path({str(tiny)!r}), threads=1, options={{'backend': 'openvino'}})\n"
        "print(b.name, sys.modules['openvino_telemetry'], [m for m in sys.modules if 'openvino_telemetry.' in m])"
    )
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split("\n")[0] == "openvino None []"
    assert not list(home.iterdir())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_backend_of_graphs_gives_the_state_of_each_token(tiny: Path, name: BackendName) -> None:
    """Of unit length, special tokens among them, padding not; a later batch does not change what was given before."""
    if name == "openvino" and not openvino.available():
        pytest.skip("the extra openvino is not installed")
    backend = open_backend("m", tiny, threads=1, options={"backend": name})
    assert isinstance(backend, TokenBackend)
    ids = backend.tokenise(["w1", "w2 w3 w4"])
    states = backend.token_states(ids)
    backend.token_states([[9, 9, 9, 9, 9]] * 2)
    for sequence, vectors in zip(ids, states, strict=True):
        assert vectors == pytest.approx(np.stack([unit(table()[token]) for token in sequence]), abs=1e-6)
    backend.close()


WAYS: Mapping[str, Mapping[str, object]] = {
    "reference": {"backend": "onnxruntime", "precision": "float32"},
    "int8": {"backend": "onnxruntime"},
    "one worker": {"backend": "onnxruntime", "workers": 1},
    "openvino": {"backend": "openvino"},
    "llama.cpp": {"backend": "llama.cpp"},
}


@pytest.fixture(scope="module")
def folder(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default encoder as ONNX, and as GGUF where the library that writes it is installed."""
    made = tmp_path_factory.mktemp("encoder")
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copy(models_dir / ENCODER / name, made)
    try:
        from tests.runtimes.embedding.gguf_models import write_minilm
    except ImportError:
        return made
    write_minilm(made / "model.gguf", onnx_folder=made)
    return made


@pytest.fixture(scope="module", params=list(WAYS))
def way(request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
    """Each way to compute the default encoder."""
    options = WAYS[request.param]
    if options["backend"] == "openvino" and not openvino.available():
        pytest.skip("the extra openvino is not installed")
    if options["backend"] == "llama.cpp" and not (folder / "model.gguf").exists():
        pytest.skip("gguf is not installed")
    backend = open_backend("m", folder, threads=2, options=options)
    yield backend
    backend.close()


def encode(backend: Backend, texts: list[str]) -> np.ndarray:
    """Vectors in the order given, in batches of similar length."""
    ids = backend.tokenise(texts)
    vectors = np.empty((len(texts), backend.dim), np.float32)
    for batch in batches([len(i) for i in ids], token_budget=backend.token_budget):
        vectors[batch] = backend.forward([ids[i] for i in batch])
    return vectors


@pytest.fixture(scope="module")
def reference(folder: Path) -> np.ndarray:
    """Vectors of TEXTS in float32."""
    backend = open_backend("m", folder, threads=2, options=WAYS["reference"])
    vectors = encode(backend, TEXTS)
    backend.close()
    return vectors


@pytest.mark.models
def test_every_backend_gives_the_reference_vectors(way: Backend, reference: np.ndarray) -> None:
    """int8 within 0.98 of float32 (a text without a word, 0.96), the others within 0.999; unit vectors all."""
    vectors = encode(way, TEXTS)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    likeness = (vectors * reference).sum(axis=1)
    empty = TEXTS.index("")
    quantised = way.name == "onnxruntime"
    assert likeness[empty] > (0.96 if quantised else 0.999)
    assert np.delete(likeness, empty).min() > (0.98 if quantised else 0.999)


@pytest.mark.models
def test_every_backend_gives_the_same_vector_alone_and_in_a_batch(way: Backend) -> None:
    """Neither padding nor neighbours leak into a vector, not even in one batch of very unequal lengths."""
    ids = way.tokenise(TEXTS)
    alone = np.concatenate([way.forward([i]) for i in ids])
    assert np.abs(way.forward(ids) - alone).max() < 1e-3
    assert np.abs(encode(way, TEXTS) - alone).max() < 1e-3


@pytest.mark.models
def test_every_backend_knows_near_meanings(way: Backend) -> None:
    """A paraphrase without a common word is nearer than another topic."""
    kitten, cat, taxes = encode(way, TEXTS[2:5])
    assert kitten @ cat > kitten @ taxes + 0.3


@pytest.mark.models
def test_every_backend_cuts_long_texts_and_takes_empty_ones(way: Backend) -> None:
    """Ten thousand tokens become `max_tokens`, the last of them the one that ends every text."""
    long, empty = way.tokenise(["word " * 10_000, ""])
    assert len(long) == way.max_tokens == 256
    assert long[-1] == empty[-1]
    assert np.isfinite(way.forward([empty])).all()


@pytest.mark.models
def test_the_states_of_tokens_are_the_references_too(way: Backend, folder: Path) -> None:
    """Each token's own direction, from those backends that give any."""
    if not isinstance(way, TokenBackend):
        pytest.skip(f"{way.name} gives whole texts only")
    exact = open_backend("m", folder, threads=2, options=WAYS["reference"])
    assert isinstance(exact, TokenBackend)
    ids = way.tokenise(TEXTS[:5])
    wanted = np.concatenate(exact.token_states(ids))
    likeness = (np.concatenate(way.token_states(ids)) * wanted).sum(axis=1)
    exact.close()
    assert likeness.min() > (0.95 if way.name == "onnxruntime" else 0.999)
