"""What a multipart form says of a file beside it: title, tags, visibility, metadata."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from neuroedge.contract.errors import InvalidInput

Fields = TypeVar("Fields", bound=BaseModel)


def form_labels(kind: type[Fields], fields: dict[str, str]) -> Fields:
    """The text fields: `tags` are parted by commas, `metadata` is JSON. Raises InvalidInput with the wrong ones."""
    given: dict[str, Any] = {name: text for name, text in fields.items() if text.strip()}
    if "tags" in given:
        given["tags"] = [tag.strip() for tag in given["tags"].split(",") if tag.strip()]
    try:
        if "metadata" in given:
            given["metadata"] = json.loads(given["metadata"])
        return kind.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(
            "a field of the form is wrong",
            errors=error.errors(include_url=False, include_input=False, include_context=False),
        ) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput("the field metadata is no JSON object", hint='for example {"project": "hall 3"}') from error
