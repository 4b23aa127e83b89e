"""The generated module is that of brain.proto as it stands."""

from pathlib import Path

import pytest

from neuroedge.grpc import generate


@pytest.mark.parametrize("name", generate.MODULES)
def test_the_generated_module_is_fresh(name: str) -> None:
    """`python -m neuroedge.grpc.generate` would change nothing."""
    made = generate.generated()
    assert Path(generate.__file__).with_name(name).read_text() == made[name]
