"""llama.cpp's server engine: one that is freed as soon as it is loaded ends."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf")

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.runtimes import device
from neuroedge.runtimes.llama_library import llama_library
from tests.runtimes.reranking.gguf_reranker import write_reranker

_FREED_AT_ONCE = """
import sys
from pathlib import Path
from neuroedge.runtimes.llama_server import parameters, started

for _ in range(400):
    params = parameters(Path(sys.argv[1]), threads=1, gpu=False, key="k")
    params.embedding, params.n_ctx, params.n_threads_http = True, 64, 1
    started(params)
"""


def test_a_server_freed_at_once_ends(tmp_path: Path) -> None:
    """Each time, though llama.cpp's own thread comes late; in a process of its own, which a hang cannot outlive."""
    write_reranker(tmp_path / "model.gguf")
    ran = subprocess.run([sys.executable, "-c", _FREED_AT_ONCE, str(tmp_path / "model.gguf")], timeout=120, check=False)
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("told", "hint"),
    [("libgomp.so.1: cannot open shared object file", "libgomp1"), ("No module named 'xllamacpp'", "make setup")],
)
def test_a_library_that_does_not_load_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, hint: str
) -> None:
    """By the model that is asked for; the server's own start only asks on which devices models would run."""
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError({told!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    with pytest.raises(ModelUnavailable, match="does not load") as caught:
        llama_library()
    assert hint in (caught.value.hint or "")
    assert device._runtime_devices("llama-cpp") == {"cpu"}
