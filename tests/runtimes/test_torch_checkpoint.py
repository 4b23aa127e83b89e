"""PyTorch checkpoints: tensors come out, nothing in the file runs."""

import io
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroedge.runtimes.torch_checkpoint import CheckpointError, read_tensors


class _Tensor:
    """Pickles as torch pickles a tensor over a storage of `values`."""

    def __init__(self, values: np.ndarray, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> None:
        self.values, self.shape, self.stride, self.offset = values, shape, stride, offset

    def __reduce__(self) -> Any:
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (_Storage(self.values), self.offset, self.shape, self.stride, False, {})


class _Storage:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.storages: dict[str, np.ndarray] = {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        key = str(id(obj.values))
        self.storages[key] = obj.values
        name = {"f4": "FloatStorage", "i8": "LongStorage"}[obj.values.dtype.str[1:]]
        return ("storage", getattr(sys.modules["torch"], name), key, "cpu", len(obj.values), None)


@pytest.fixture
def _torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the names a checkpoint refers to, so that the standard pickler writes them."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*args: Any) -> None:
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    inner._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    torch._utils = inner  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", inner)


def _checkpoint(content: Any) -> bytes:
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, file, protocol=2)
    pickler = _Pickler(file)
    pickler.dump(content)
    pickle.dump(list(pickler.storages), file, protocol=2)
    for values in pickler.storages.values():
        file.write(len(values).to_bytes(8, "little") + values.tobytes())
    return file.getvalue()


def _content() -> dict[str, Any]:
    shared = np.arange(12, dtype=np.float32)
    return {
        "optimizer": {"moments": [_Tensor(np.full(1000, 9, np.float32), (1000,), (1,))]},
        "model": {
            "whole": _Tensor(shared, (3, 4), (4, 1)),
            "turned": _Tensor(shared, (4, 3), (1, 4)),
            "part": _Tensor(shared, (2,), (1,), offset=5),
            "steps": _Tensor(np.array([7], np.int64), (), ()),
        },
    }


@pytest.mark.usefixtures("_torch_names")
def test_a_section_comes_out_with_shapes_strides_and_types(tmp_path: Path) -> None:
    """Transposed and offset tensors over a shared storage are read right; another section is skipped."""
    path = tmp_path / "weights.pt"
    path.write_bytes(_checkpoint(_content()))
    tensors = read_tensors(path, section="model")
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(tensors["whole"], grid)
    np.testing.assert_array_equal(tensors["turned"], grid.T)
    np.testing.assert_array_equal(tensors["part"], [5, 6])
    assert tensors["steps"].shape == ()
    assert tensors["steps"].dtype == np.int64
    assert list(tensors) == ["whole", "turned", "part", "steps"]


@pytest.mark.usefixtures("_torch_names")
def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path) -> None:
    """A shape larger than its storage must not read foreign memory."""
    path = tmp_path / "weights.pt"
    path.write_bytes(_checkpoint({"model": {"w": _Tensor(np.zeros(4, np.float32), (3, 2), (2, 1))}}))
    with pytest.raises(CheckpointError, match="outside"):
        read_tensors(path, section="model")


@pytest.mark.usefixtures("_torch_names")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_off_file_is_refused(tmp_path: Path, share: float) -> None:
    """Wherever the file ends early, the error is ours."""
    content = _content()
    content["model"] = {"last": content["model"]["whole"]}
    whole = _checkpoint(content)
    path = tmp_path / "weights.pt"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError):
        read_tensors(path, section="model")


def test_a_pickle_that_calls_something_is_refused_without_calling(tmp_path: Path) -> None:
    """A checkpoint that would write a file ends the reading, and no file is written."""

    class Attack:
        def __reduce__(self) -> Any:
            return Path.write_text, (tmp_path / "written", "x")

    path = tmp_path / "weights.pt"
    path.write_bytes(_checkpoint({"model": {"w": Attack()}}))
    with pytest.raises(CheckpointError, match="not allowed"):
        read_tensors(path, section="model")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("start", [b"PK\x03\x04zip", b"", b"not a pickle", pickle.dumps(5)])
def test_other_files_are_refused(tmp_path: Path, start: bytes) -> None:
    """Zipped checkpoints, empty files and other things are named as what they are not."""
    path = tmp_path / "weights.pt"
    path.write_bytes(start)
    with pytest.raises(CheckpointError):
        read_tensors(path, section="model")


@pytest.mark.usefixtures("_torch_names")
def test_a_missing_section_is_named(tmp_path: Path) -> None:
    """The error says which entry was asked for."""
    path = tmp_path / "weights.pt"
    path.write_bytes(_checkpoint(_content()))
    with pytest.raises(CheckpointError, match="'other'"):
        read_tensors(path, section="other")


@pytest.mark.models
def test_the_voice_encoders_weights_are_read(models_dir: Path) -> None:
    """All sixteen tensors of the real checkpoint, with sane values."""
    tensors = read_tensors(models_dir / "resemblyzer-ge2e" / "pretrained.pt", section="model_state")
    assert tensors["lstm.weight_ih_l0"].shape == (1024, 40)
    assert len(tensors) == 16
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
