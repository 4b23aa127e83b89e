"""Write the Python module of brain.proto anew: `python -m neuroedge.grpc.generate`. Needs grpcio-tools."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_HEADER: Final = "# ruff: noqa\n# fmt: off\n# mypy: disable-error-code=type-arg\n"
_PROTO: Final = "neuroedge/grpc/brain.proto"
MODULES: Final = ("brain_pb2.py", "brain_pb2.pyi")


def generated() -> dict[str, str]:
    """Text of each module by its file name, as the proto file demands it now."""
    import grpc_tools  # type: ignore[import-untyped]
    from grpc_tools import protoc

    source = Path(__file__).parents[2]
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with TemporaryDirectory() as folder:
        options = [f"-I{source}", f"-I{well_known}", f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", *options, _PROTO]) != 0:
            raise RuntimeError("protoc refuses brain.proto; its words are above")
        made = Path(folder, _PROTO).parent
        return {name: _HEADER + (made / name).read_text() for name in MODULES}


if __name__ == "__main__":
    for name, text in generated().items():
        Path(__file__).with_name(name).write_text(text)
