"""Engines' payloads and answers as google.protobuf.Struct: numbers are doubles there, and there is no NaN."""

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from neuroedge.contract.errors import InvalidInput


def payload_of(struct: Struct) -> dict[str, Any]:
    """The fields of a Struct; whole numbers as int. Raises InvalidInput for NaN and infinity."""
    try:
        told: dict[str, Any] = json_format.MessageToDict(struct)
    except (ValueError, json_format.Error) as error:
        raise InvalidInput("`input` holds NaN or an infinite number", hint="send finite numbers, or null") from error
    return {name: _whole(value) for name, value in told.items()}


def struct_of(fields: Mapping[str, Any]) -> Struct:
    """A Struct of an engine's answer; what is not finite becomes null."""
    return json_format.ParseDict(_finite(dict(fields)), Struct())


def value_of(value: Any) -> Value:
    """Any JSON value; what is not finite becomes null."""
    return json_format.ParseDict(_finite(value), Value())


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
