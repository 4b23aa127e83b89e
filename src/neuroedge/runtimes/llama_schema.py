"""Several JSON Schemas in one, for a grammar.

A schema refers to its own parts from its root (`#/$defs/Item`, or `#` itself), as pydantic writes them; inside another
one that root is elsewhere. So a schema with references is put whole under `$defs` of the outer one, by a name of its
own, and its references are written anew.
"""

from collections.abc import Mapping
from typing import Any, Final

from neuroedge.contract.errors import InvalidInput

Schema = dict[str, Any]
_BY_NAME: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keywords whose value holds schemas by names that are no keywords."""
_DATA: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose value holds no schemas."""


class Nesting:
    """Collects what the parts of an outer schema refer to."""

    def __init__(self) -> None:
        self._parts: Schema = {}

    def part(self, schema: Mapping[str, Any]) -> Schema:
        """The schema as it stands inside the outer one. Raises InvalidInput for one that is nested too deeply."""
        root = f"#/$defs/part_{len(self._parts)}"
        try:
            moved = _moved(schema, root)
        except RecursionError as error:
            raise InvalidInput("the JSON schema is nested too deeply") from error
        if moved == schema:
            return dict(schema)
        self._parts[root.rpartition("/")[2]] = moved
        return {"$ref": root}

    def whole(self, outer: Schema) -> Schema:
        """The outer schema with all that its parts refer to."""
        return {**outer, "$defs": self._parts} if self._parts else outer


def _moved(value: Any, root: str) -> Any:
    """A schema, or what stands in one, with references that begin at `root`."""
    if isinstance(value, Mapping):
        return {key: _under(key, inner, root) for key, inner in value.items()}
    return [_moved(one, root) for one in value] if isinstance(value, list) else value


def _under(keyword: str, value: Any, root: str) -> Any:
    if keyword in _DATA:
        return value
    if keyword == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
        return f"{root}{value[1:]}"
    if keyword in _BY_NAME and isinstance(value, Mapping):
        return {name: _moved(schema, root) for name, schema in value.items()}
    return _moved(value, root)
