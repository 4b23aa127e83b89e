"""The vision engine: each task, what is skipped and why, places kept secret, pictures of every kind."""

import base64
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta, ChatRequest, Policy
from neuroedge.contract.errors import (
    BudgetExceeded,
    EmptyMedia,
    InvalidInput,
    NotFound,
    TooLarge,
    UnreadableMedia,
    UnsupportedMedia,
)
from neuroedge.contract.models import Floats
from neuroedge.engines.vision import ocr
from neuroedge.engines.vision.vision import Input, Output, VisionEngine
from neuroedge.runtimes.pictures import PillowPictures
from tests.engines.vision import pages
from tests.fakes import make_context
from tests.runtimes.test_pictures import exif, half

pytestmark = pytest.mark.anyio


class Judge:
    """An image_safety model with a settled mind."""

    model_id = "judge"

    def __init__(self, p: float) -> None:
        self._p = p

    async def p_unsafe(self, image: bytes) -> float:
        """That probability."""
        return self._p


class Colours:
    """An image_embedding model whose space is red, green and blue."""

    model_id, method, dim, max_tokens = "colours", "clip", 3, 8

    async def encode_images(self, images: Sequence[bytes]) -> Floats:
        """The mean colour."""
        rows = [(await PillowPictures().decoded(i, max_pixels=100)).pixels.mean(axis=(0, 1)) + 1e-6 for i in images]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)

    async def encode_texts(self, texts: Sequence[str]) -> Floats:
        """By the word for it."""
        return np.array([[word in text for word in ("red", "green", "blue")] for text in texts], np.float32)

    def probabilities(self, cosines: Floats) -> Floats:
        """Shares."""
        return np.asarray(cosines / cosines.sum(), np.float32)


class Describing:
    """A language model that sees, or an error of one that does not."""

    def __init__(self, *pieces: str, error: Exception | None = None) -> None:
        self.asked: list[tuple[ChatRequest, Policy]] = []
        self._pieces = pieces
        self._error = error

    async def stream(self, request: ChatRequest, *, policy: Policy = Policy()) -> AsyncGenerator[ChatDelta, None]:
        """The pieces."""
        self.asked.append((request, policy))
        if self._error:
            raise self._error
        for piece in self._pieces:
            yield ChatDelta(text=piece, model="vendor/sees")
        yield ChatDelta(finish_reason="stop", prompt_tokens=900, completion_tokens=7)

    async def chosen(self, policy: Policy = Policy()) -> Any:
        """Nobody asks."""
        raise AssertionError


async def run(data: bytes, *tasks: str, models: dict[str, Any] | None = None, **given: Any) -> Output:
    """The engine's answer on a picture."""
    ports = {name: given.pop(name) for name in ("llm", "call") if name in given}
    ctx = dataclasses.replace(make_context(models=models, **ports), pictures=PillowPictures())
    payload = Input.model_validate({"image": _source(data), "tasks": list(tasks), **given})
    return await VisionEngine(probe=ctx).run(payload, ctx)


def _source(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


async def test_facts_are_of_the_picture_as_it_is_to_be_seen() -> None:
    """Size and colours upright; the orientation as it stood in the file."""
    answer = await run(pages.encoded(half(), "JPEG", exif=exif(orientation=6), quality=95), "facts")
    assert answer.facts is not None
    assert (answer.facts.width_px, answer.facts.height_px, answer.facts.exif_orientation) == (20, 40, 6)
    assert [colour.share for colour in answer.facts.colours[:2]] == pytest.approx([0.5, 0.5], abs=0.1)
    assert len(answer.facts.perceptual_hash) == 16
    assert (answer.method, answer.reliable, answer.safety, answer.embedding) == ("image-facts", True, None, None)


async def test_where_it_was_taken_is_told_only_when_asked_for() -> None:
    """That there is a place is told, so that one can know to remove it; the place is not."""
    data = pages.encoded(half(), "JPEG", exif=exif(located=True))
    silent = await run(data, "facts")
    assert silent.facts is not None
    assert (silent.facts.has_location, silent.facts.location) == (True, None)
    assert "151.2" not in silent.model_dump_json()
    asked = await run(data, "facts", location=True)
    assert asked.facts is not None
    assert asked.facts.location == pytest.approx((-33.8583, 151.21), abs=1e-3)


@pytest.mark.parametrize(("p", "verdict"), [(0.1, "safe"), (0.5, "unsure"), (0.9, "unsafe")])
async def test_safety_has_a_verdict_between(p: float, verdict: str) -> None:
    """What is neither surely safe nor unsafe is for a person."""
    answer = await run(pages.encoded(half()), "safety", models={"image_safety": Judge(p)})
    assert answer.safety is not None
    assert (answer.safety.verdict, answer.safety.p_unsafe, answer.models) == (verdict, p, ["judge"])


async def test_without_its_model_safety_is_skipped_and_not_safe() -> None:
    """The answer is marked and says what would help."""
    answer = await run(pages.encoded(half()), "safety", "facts")
    assert (answer.safety, answer.reliable) == (None, False)
    assert [skipped.task for skipped in answer.skipped] == ["safety"]
    assert "image_safety" in answer.skipped[0].reason
    assert answer.facts is not None


async def test_a_model_of_pictures_and_words_finds_the_label() -> None:
    """Best first; the vector is the model's, and computed with it."""
    models = {"image_embedding": Colours()}
    blue = pages.encoded(Image.new("RGB", (9, 9), (10, 20, 250)))
    answer = await run(blue, "labels", "embedding", models=models, labels=["red", "blue", "green"])
    assert answer.labels is not None
    assert [label.label for label in answer.labels] == ["blue", "green", "red"]
    assert sum(label.p for label in answer.labels) == pytest.approx(1, abs=1e-3)
    assert answer.embedding is not None
    assert (answer.embedding.method, answer.embedding.model, answer.embedding.dim) == ("clip", "colours", 3)
    assert (answer.method, answer.models) == ("clip", ["colours"])


async def test_without_it_labels_are_skipped_and_likeness_is_by_colour_and_edges() -> None:
    """The weaker method is named in every answer that it gave."""
    data, other = pages.encoded(half((80, 60))), pages.encoded(pages.page())
    near = pages.encoded(half((120, 90)), "JPEG", quality=80)
    answer = await run(
        data,
        "labels",
        "similarity",
        "embedding",
        labels=["a", "b"],
        compare_with=[_source(near), _source(other)],
    )
    assert [skipped.task for skipped in answer.skipped] == ["labels"]
    assert answer.similarity is not None
    alike, different = answer.similarity
    assert alike.cosine > 0.9 > different.cosine
    assert alike.hash_distance_bits <= 8 < different.hash_distance_bits
    assert answer.embedding is not None
    assert (answer.embedding.method, answer.embedding.model) == ("colour-gradient-1", None)
    assert np.linalg.norm(answer.embedding.vector) == pytest.approx(1, abs=1e-4)
    assert answer.method == "colour-gradient-1"


async def test_a_description_sends_no_metadata() -> None:
    """The model gets the picture upright, as JPEG without EXIF; its tokens are counted."""
    llm = Describing("Two ", "colours.")
    data = pages.encoded(half(), "JPEG", exif=exif(orientation=6, located=True))
    answer = await run(data, "description", llm=llm, prompt="What is it?", local_only=True)
    assert (answer.description, answer.models, answer.method) == ("Two colours.", ["vendor/sees"], "llm")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (900, 7)
    request, policy = llm.asked[0]
    (message,) = request.messages
    assert (message.content, policy.local_only) == ("What is it?", True)
    assert message.images[0].media_type == "image/jpeg"
    assert b"Exif" not in message.images[0].data


@pytest.mark.parametrize(
    "llm",
    [
        Describing(error=InvalidInput("no model here takes images", hint="set up a model that does")),
        Describing(error=NotFound("no language model is set up")),
        Describing("  "),
    ],
    ids=["blind", "none", "silent"],
)
async def test_without_a_model_that_sees_there_is_no_description(llm: Describing) -> None:
    """Null with the reason, never a canned sentence."""
    answer = await run(pages.encoded(half()), "description", llm=llm)
    assert (answer.description, answer.reliable) == (None, False)
    assert "language model" in answer.skipped[0].reason


async def test_a_spent_budget_is_an_error() -> None:
    """The caller must learn of it."""
    with pytest.raises(BudgetExceeded):
        await run(pages.encoded(half()), "description", llm=Describing(error=BudgetExceeded("spent")))


async def test_text_is_that_of_the_ocr_engine() -> None:
    """It gets the file as it was sent."""

    async def call(name: str, payload: Any) -> ocr.Output:
        assert (name, payload.image.base64) == ("ocr", _source(data)["base64"])
        return ocr.Output(
            method="m", models=["reader"], text="Hello", lines=[], size_px=(1, 1), turned_degrees=0, pages=1
        )

    data = pages.encoded(half())
    answer = await run(data, "text", call=call)
    assert (answer.text, answer.models, answer.method) == ("Hello", ["reader"], "m")


async def test_an_animation_is_marked() -> None:
    """Only its first frame was looked at."""
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green")]
    data = pages.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    answer = await run(data, "facts", "safety", models={"image_safety": Judge(0.0)})
    assert (answer.reliable, answer.warnings) == (False, ["only the first of 2 frames was looked at"])


@pytest.mark.parametrize(
    "data",
    [
        pages.encoded(Image.new("L", (1, 1))),
        pages.encoded(half().convert("CMYK"), "JPEG"),
        pages.encoded(Image.new("RGBA", (3, 700), (9, 9, 9, 0))),
        pages.encoded(Image.fromarray(np.full((4, 4), 40_000, np.uint16))),
    ],
    ids=["1x1", "CMYK", "thin and clear", "16 bits"],
)
async def test_odd_pictures_are_answered(data: bytes) -> None:
    """All measures and the vector, finite."""
    answer = await run(data, "facts", "embedding")
    assert answer.facts is not None
    assert answer.embedding is not None
    assert np.isfinite(answer.embedding.vector).all()
    assert 0 <= answer.facts.brightness <= 1


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (pages.encoded(half())[:60], UnreadableMedia),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedMedia),
        (pages.encoded(Image.new("1", (10_000, 10_000))), TooLarge),
        (b"", EmptyMedia),
    ],
    ids=["cut off", "SVG", "bomb", "empty"],
)
async def test_bad_pictures_are_errors_of_their_kind(data: bytes, error: type[Exception]) -> None:
    """As picture and as one to compare with."""
    with pytest.raises(error):
        await run(data, "facts")
    with pytest.raises(error):
        await run(pages.encoded(half()), "similarity", compare_with=[_source(data)])


@pytest.mark.parametrize(
    ("tasks", "given", "field"),
    [(["labels"], {"labels": ["one"]}, "labels"), (["similarity"], {}, "compare_with")],
)
async def test_a_task_without_what_it_needs_is_refused(tasks: list[str], given: dict[str, Any], field: str) -> None:
    """With the field's name."""
    with pytest.raises(InvalidInput) as refused:
        await run(pages.encoded(half()), *tasks, **given)
    assert refused.value.errors[0]["loc"] == (field,)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"image": {}},
        {"image": {"base64": "QQ=="}, "tasks": []},
        {"image": {"base64": "QQ=="}, "tasks": ["identify"]},
        {"image": {"base64": "QQ=="}, "labels": ["x"] * 101},
        {"image": {"base64": "QQ=="}, "labels": [""]},
        {"image": {"base64": "QQ=="}, "compare_with": [{"base64": "QQ=="}] * 9},
        {"image": {"base64": "QQ=="}, "prompt": ""},
    ],
)
def test_input_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    """By the schema."""
    with pytest.raises(ValidationError):
        Input.model_validate(wrong)


async def test_health_tells_which_tasks_are_weaker() -> None:
    """Degraded without CLIP or without the safety model; ready with both."""
    both = make_context(models={"image_safety": Judge(0), "image_embedding": Colours()})
    assert (await VisionEngine(probe=both).health()).status == "ready"
    without_clip = await VisionEngine(probe=make_context(models={"image_safety": Judge(0)})).health()
    assert (without_clip.status, "labels are skipped" in (without_clip.detail or "")) == ("degraded", True)
    assert "safety is skipped" in ((await VisionEngine(probe=make_context()).health()).detail or "")
