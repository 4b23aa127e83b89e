"""Every error of the platform has a status of gRPC, and metadata that any client can read."""

import grpc
import pytest

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError, Overloaded, of_code
from neuroedge.grpc.brain_pb2 import Problem
from neuroedge.grpc.problems import metadata_of, problem_of, status_of


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("unauthenticated", "UNAUTHENTICATED"),
        ("forbidden", "PERMISSION_DENIED"),
        ("not_found", "NOT_FOUND"),
        ("conflict", "FAILED_PRECONDITION"),
        ("deadline_exceeded", "DEADLINE_EXCEEDED"),
        ("too_large", "INVALID_ARGUMENT"),
        ("invalid_input", "INVALID_ARGUMENT"),
        ("unsupported_media", "INVALID_ARGUMENT"),
        ("budget_exceeded", "RESOURCE_EXHAUSTED"),
        ("overloaded", "RESOURCE_EXHAUSTED"),
        ("model_unavailable", "UNAVAILABLE"),
        ("provider_failed", "UNAVAILABLE"),
        ("internal", "INTERNAL"),
    ],
)
def test_an_error_has_a_status(code: str, status: str) -> None:
    """The one that gRPC's clients treat alike."""
    assert status_of(of_code(code, "d")) == grpc.StatusCode[status]


def _statuses(kind: type[NeuroEdgeError]) -> set[int]:
    return {kind.status}.union(*(_statuses(one) for one in kind.__subclasses__()))


def test_only_our_own_faults_are_internal() -> None:
    """Every HTTP status in use is mapped."""
    for status in _statuses(NeuroEdgeError) - {500}:
        error = NeuroEdgeError("d")
        error.status = status  # type: ignore[misc]
        assert status_of(error) is not grpc.StatusCode.INTERNAL, status


def test_hints_are_ascii_in_metadata_and_whole_in_the_problem() -> None:
    """Metadata hold nothing else; long texts and many fields are cut."""
    wrong = [{"loc": ("responses", n, "at_s"), "msg": "m" * 999, "type": "t"} for n in range(50)]
    problem = problem_of(InvalidInput("d" * 9999, hint="sende höchstens 5 €", errors=wrong), "r")
    told = dict(metadata_of(problem))
    assert told["neuroedge-hint"] == "sende h?chstens 5 ?"
    assert "retry-after" not in told
    data = told["neuroedge-problem-bin"]
    assert isinstance(data, bytes)
    read = Problem.FromString(data)
    assert (read.hint, len(read.detail), len(read.errors)) == ("sende höchstens 5 €", 500, 20)
    assert read.errors[1].field == "responses.1.at_s"
    assert sum(len(key) + len(value) for key, value in told.items()) < 8192


def test_who_may_come_again_is_told_when() -> None:
    """In seconds."""
    told = dict(metadata_of(problem_of(Overloaded("full", retry_after_s=7), "r")))
    assert told["retry-after"] == "7"
