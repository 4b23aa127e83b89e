"""Payloads and answers as Structs: whole numbers stay whole, what is not finite is refused or becomes null."""

import math

import pytest
from google.protobuf.struct_pb2 import Struct

from neuroedge.contract.errors import InvalidInput
from neuroedge.grpc.structs import payload_of, struct_of, value_of


def test_a_payload_comes_through_unchanged() -> None:
    """Nested, with whole and broken numbers, null and truth."""
    fields = {"n": 3, "x": 0.5, "list": [1, {"a": None}], "yes": True, "text": "ä", "none": None, "big": 2**53}
    told = payload_of(struct_of(fields))
    assert told == fields
    assert isinstance(told["n"], int)
    assert isinstance(told["yes"], bool)


def test_an_answer_without_finite_numbers_has_null_in_their_place() -> None:
    """At any depth."""
    told = struct_of({"a": math.nan, "b": [math.inf, 1.0], "c": {"d": -math.inf}})
    assert payload_of(told) == {"a": None, "b": [None, 1], "c": {"d": None}}
    assert value_of(math.nan).WhichOneof("kind") == "null_value"
    assert value_of([{"p": 0.25}]).list_value.values[0].struct_value.fields["p"].number_value == 0.25


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_payload_with_nan_is_refused(number: float) -> None:
    """It has no place in JSON, which engines are described in."""
    struct = Struct()
    struct.fields["x"].number_value = number
    with pytest.raises(InvalidInput, match="NaN"):
        payload_of(struct)
