"""ShikshaSetu's content over HTTP: simplified and translated texts, errors in its own words."""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Server

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def caller(server: Server) -> Iterator[httpx.Client]:
    """The owner of a fresh organisation."""
    with server.new_account() as client:
        yield client


def test_a_text_is_simplified_for_a_grade(caller: httpx.Client) -> None:
    """With the grade before and after."""
    text = (
        "The committee commenced its work in 1998, and the members utilized numerous documents in order to find the "
        "facts. The river, which rises in the hills, is long, but it does not reach the sea."
    )
    answer = caller.post("/api/v2/content/simplify", json={"text": text, "grade_level": 3})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["grade_after"] < told["grade_before"]
    assert "1998" in told["simplified_text"]
    assert told["request_id"] == answer.headers["x-request-id"]


def test_a_translation_names_who_made_it(caller: httpx.Client) -> None:
    """Without a translation model the language model, and never silently; terms are kept."""
    body = {
        "text": "Plants need water.",
        "source_language": "en",
        "target_language": "hi",
        "glossary": {"water": "पानी"},
    }
    answer = caller.post("/api/v2/content/translate", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["backend"] == "llm"
    assert told["models"]
    assert told["warnings"]
    assert "पानी" in told["translated_text"]
    same = caller.post("/api/v2/content/translate", json={**body, "target_language": "en"}).json()
    assert (same["backend"], same["translated_text"]) == ("none", body["text"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("simplify", {}),
        ("simplify", {"text": ""}),
        ("simplify", {"text": "x", "grade_level": 0}),
        ("translate", {"text": "x"}),
        ("translate", {"text": "x", "target_language": "klingon"}),
        ("translate", {"text": "OK 42", "target_language": "hi"}),
        ("translate", {"text": "x" * 20_001, "target_language": "hi"}),
        ("translate", {"text": "x", "target_language": "hi", "glossary": {"": "y"}}),
    ],
)
def test_bad_content_is_refused_in_its_own_words(caller: httpx.Client, path: str, body: dict[str, object]) -> None:
    """{error, message, request_id}."""
    answer = caller.post(f"/api/v2/content/{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert set(answer.json()) == {"error", "message", "request_id"}
    assert answer.json()["error"] == "invalid_input"
