"""What the documentation says of errors, against the errors there are."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroedge.contract import errors
from neuroedge.contract.errors import NeuroEdgeError
from neuroedge.http.app import _PROBLEMS
from neuroedge.services.voice_drafts import ConsentRequired
from neuroedge.services.voices import SampleRefused

API = Path(__file__).parents[2] / "docs" / "api.md"
DEFECT = 500


def _kinds(of: type[NeuroEdgeError]) -> Iterator[type[NeuroEdgeError]]:
    yield of
    for kind in of.__subclasses__():
        yield from _kinds(kind)


ERRORS = [
    *(kind for kind in _kinds(NeuroEdgeError) if kind.__module__ == errors.__name__),
    *(ConsentRequired, SampleRefused),
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_code_stands_in_the_table_of_errors_beside_its_status(kind: type[NeuroEdgeError]) -> None:
    """docs/api.md, "Errors": a row with the status, which names the code."""
    rows = re.findall(r"^\| ([0-9, ]+) \| (.*) \|$", API.read_text(), re.MULTILINE)
    told = {(status, code) for statuses, codes in rows for status in statuses.split(", ") for code in codes.split()}
    assert any(status == str(kind.status) and kind.code == word.strip(",:;") for status, word in told)


def test_openapi_tells_every_status_of_an_error() -> None:
    """But of defects, which nobody is to expect."""
    assert {kind.status for kind in ERRORS} - {DEFECT} == set(_PROBLEMS)
