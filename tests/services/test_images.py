"""Images over a real database and a real folder: found by likeness, by words, never across methods or people."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from neuroedge.contract.errors import (
    Conflict,
    Forbidden,
    ModelUnavailable,
    NotFound,
    TooLarge,
    Unavailable,
    UnreadableMedia,
    UnsupportedMedia,
)
from neuroedge.contract.principal import Principal
from neuroedge.engines.vision.vision import Output, VisionEngine
from neuroedge.infra.blobs import open_store
from neuroedge.infra.clock import SystemClock
from neuroedge.runtimes.pictures import PillowPictures
from neuroedge.services import housekeeping
from neuroedge.services import images as service
from neuroedge.services.images import Images, Labels, Wanted
from neuroedge.services.recordings import Upload
from neuroedge.services.run_engine import Contexts
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.engines.vision.pages import source
from tests.engines.vision.test_vision import Colours
from tests.fakes import FakeModels
from tests.photographs import jpeg, photograph, variants
from tests.stores.conftest import colleague, new_principal

pytestmark = pytest.mark.anyio


class _Runner:
    """Runs the vision engine on real pictures; its models can be changed."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.models: dict[str, Any] = {}
        self.contexts = Contexts(
            db=db,
            models=FakeModels({}),
            blob_store=open_store(None, folder / "blobs"),
            tmp=folder,
            cache=lambda principal: None,  # type: ignore[arg-type,return-value]
            clock=SystemClock(),
            llm=lambda principal, request_id: None,  # type: ignore[arg-type,return-value]
            max_audio_bytes=1,
            max_audio_s=1,
        )

    def context(self, principal: Principal, *, request_id: str) -> Any:
        """What the engine needs."""

        async def progress(stage: str, fraction: float) -> None:
            """Nobody listens."""

        return SimpleNamespace(
            models=FakeModels(self.models),
            blobs=self.contexts.seen_blobs(principal),
            pictures=PillowPictures(),
            progress=progress,
        )

    async def run(self, name: str, payload: Any, *, principal: Principal, request_id: str) -> Output:
        """Its answer."""
        assert name == "vision"
        ctx = self.context(principal, request_id=request_id)
        return await VisionEngine(probe=ctx).run(payload, ctx)


class Bench:
    """The service over a database and a folder."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.runner, self._folder = _Runner(db, folder), folder
        runner: Any = self.runner
        self.images = Images(db=db, runner=runner)

    def upload(self, data: bytes, *, name: str = "photo.jpg") -> Upload:
        """As it was received."""
        path = self._folder / f"upload-{new_id()}"
        path.write_bytes(data)
        return Upload(path=path, filename=name, bytes=len(data))

    async def add(self, caller: Principal, data: bytes, **labels: Any) -> UUID:
        """Keep an image."""
        added = await self.images.add(caller, self.upload(data), labels=Labels(**labels), request_id="r")
        return added.image.id

    async def objects(self, caller: Principal) -> int:
        """How many objects the organisation has."""
        return await self.runner.contexts.blobs(caller).count("images")


@pytest.fixture
def bench(db: Database, tmp_path: Path) -> Bench:
    """One for each test."""
    return Bench(db, tmp_path)


async def test_a_photograph_is_found_by_its_variants(db: Database, bench: Bench) -> None:
    """Smaller, harder compressed and cut ones find the whole one before the other photograph, by colours and edges."""
    caller = await new_principal(db)
    temple, dahlia = variants("china"), variants("flower")
    kept = await bench.add(caller, temple["whole"], title="temple", tags=["trip"], metadata={"n": 1})
    other = await bench.add(caller, dahlia["whole"])
    for name in ("small", "hard", "cut"):
        found = await bench.images.like_image(caller, source(temple[name]), wanted=Wanted(), request_id="r")
        assert [hit.image.id for hit in found.hits] == [kept, other]
        assert found.hits[0].cosine > found.hits[1].cosine
        assert (found.method, found.model, found.compared, found.left_out) == ("colour-gradient-1", None, 2, 0)
    assert found.hits[0].image.said.metadata == {"n": 1}
    found = await bench.images.like_image(caller, source(temple["hard"]), wanted=Wanted(limit=1), request_id="r")
    assert [hit.image.id for hit in found.hits] == [kept]
    assert found.hits[0].hash_distance_bits is not None
    assert found.hits[0].hash_distance_bits <= 4
    assert found.hits[0].cosine > 0.95
    far = await bench.images.like_image(caller, source(temple["hard"]), wanted=Wanted(min_cosine=0.9), request_id="r")
    assert [hit.image.id for hit in far.hits] == [kept]


async def test_a_kept_image_finds_others_but_not_itself(db: Database, bench: Bench) -> None:
    """Its near twin comes first."""
    caller = await new_principal(db)
    files = variants("china")
    kept, twin = await bench.add(caller, files["whole"]), await bench.add(caller, files["small"])
    await bench.add(caller, variants("flower")["whole"])
    found = await bench.images.like_kept(caller, kept, wanted=Wanted(), request_id="r")
    assert found.hits[0].image.id == twin
    assert kept not in [hit.image.id for hit in found.hits]
    assert found.compared == 2


async def test_the_same_file_is_kept_once(db: Database, bench: Bench) -> None:
    """For one user; a colleague's is another image."""
    caller = await new_principal(db)
    data = variants("flower")["small"]
    first = await bench.add(caller, data, title="first")
    again = await bench.images.add(caller, bench.upload(data), labels=Labels(title="second"), request_id="r")
    assert (again.duplicate, again.image.id, again.image.said.title) == (True, first, "first")
    assert await bench.objects(caller) == 1
    assert await bench.add(colleague(caller, "member"), data) != first
    assert await bench.objects(caller) == 2


async def test_nobody_else_finds_a_private_image(db: Database, bench: Bench) -> None:
    """Not a colleague, not another organisation; what is shared, colleagues find."""
    caller, stranger = await new_principal(db), await new_principal(db)
    other_user = colleague(caller, "member")
    data = variants("china")
    private = await bench.add(caller, data["whole"])
    shared = await bench.add(caller, data["cut"], visibility="organisation")
    for other in (other_user, stranger):
        with pytest.raises(NotFound):
            await bench.images.content(other, private)
        with pytest.raises(NotFound):
            await bench.images.like_kept(other, private, wanted=Wanted(), request_id="r")
        with pytest.raises(NotFound):
            await bench.images.delete(other, private, request_id="r")
    found = await bench.images.like_image(other_user, source(data["whole"]), wanted=Wanted(), request_id="r")
    assert [hit.image.id for hit in found.hits] == [shared]
    assert [image.id for image in await bench.images.page(other_user, limit=9, before=None)] == [shared]
    found = await bench.images.like_image(stranger, source(data["whole"]), wanted=Wanted(), request_id="r")
    assert (found.hits, found.compared) == ([], 0)
    assert await bench.images.page(stranger, limit=9, before=None) == []


async def test_methods_are_never_mixed(db: Database, bench: Bench) -> None:
    """With a model set up later, older images are left out and counted, until they are looked at anew."""
    caller = await new_principal(db)
    red, blue = (jpeg(_plain(colour)) for colour in ("red", "blue"))
    ids = {await bench.add(caller, red), await bench.add(caller, blue)}
    bench.runner.models = {"image_embedding": Colours()}
    found = await bench.images.like_image(caller, source(red), wanted=Wanted(), request_id="r")
    assert (found.hits, found.method, found.compared, found.left_out) == ([], "clip", 0, 2)
    first = await bench.images.reembed(caller, limit=1, after=None, request_id="r")
    assert (first.done, first.failed, first.left) == (1, [], 1)
    rest = await bench.images.reembed(caller, limit=5, after=first.next, request_id="r")
    assert (rest.done, rest.left, rest.next) == (1, 0, None)
    found = await bench.images.by_words(caller, "something red", wanted=Wanted(), request_id="r")
    assert {hit.image.id for hit in found.hits} == ids
    assert (await bench.images.content(caller, found.hits[0].image.id))[1] == red
    assert (found.hits[0].cosine > 0.99, found.hits[0].hash_distance_bits, found.model) == (True, None, "colours")
    assert {image.said.model for image in await bench.images.page(caller, limit=9, before=None)} == {"colours"}


def _plain(colour: str) -> Any:
    from PIL import Image

    return Image.new("RGB", (64, 64), colour)


async def test_without_a_model_nothing_is_found_by_words(db: Database, bench: Bench) -> None:
    """An error that says what is missing, rather than any images; a key for other engines is refused."""
    caller = await new_principal(db)
    with pytest.raises(ModelUnavailable, match="CLIP"):
        await bench.images.by_words(caller, "a temple", wanted=Wanted(), request_id="r")
    limited = Principal(
        user_id=caller.user_id,
        org_id=caller.org_id,
        username="k",
        role="owner",
        permissions=caller.permissions,
        engines=frozenset({"chat"}),
    )
    with pytest.raises(Forbidden):
        await bench.images.by_words(limited, "a temple", wanted=Wanted(), request_id="r")


async def test_what_is_no_image_leaves_nothing(db: Database, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with its fault; neither row nor object stays."""
    caller = await new_principal(db)
    whole = variants("china")["whole"]
    for data, fault in (
        (b"no picture", UnsupportedMedia),
        (whole[:3000], UnreadableMedia),
        (b"<svg/>", UnsupportedMedia),
    ):
        with pytest.raises(fault):
            await bench.add(caller, data)
    monkeypatch.setattr(service.ocr, "MAX_BYTES", 100)
    with pytest.raises(TooLarge):
        await bench.add(caller, whole)
    assert await bench.objects(caller) == 0
    assert await bench.images.page(caller, limit=9, before=None) == []


async def test_a_user_has_so_many_images_at_most(db: Database, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is stored."""
    caller = await new_principal(db)
    monkeypatch.setattr(service, "MAX_IMAGES", 1)
    data = variants("china")
    await bench.add(caller, data["small"])
    with pytest.raises(Conflict):
        await bench.add(caller, data["cut"])
    assert await bench.objects(caller) == 1


async def test_a_model_that_fails_is_told(db: Database, bench: Bench) -> None:
    """The image is not kept with another method's vector."""

    class Broken(Colours):
        """Out of order."""

        async def encode_images(self, images: Any) -> Any:
            """Nothing."""
            raise ModelUnavailable("the model does not load")

    caller = await new_principal(db)
    bench.runner.models = {"image_embedding": Broken()}
    with pytest.raises(Unavailable, match="does not load"):
        await bench.add(caller, variants("china")["small"])
    assert await bench.objects(caller) == 0


async def test_deleted_is_gone_and_orphans_are_swept(
    db: Database, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object with the row; an object without a row after a while, others stay."""
    caller = await new_principal(db)
    data = variants("flower")
    gone, stays = await bench.add(caller, data["small"]), await bench.add(caller, data["cut"])
    await bench.images.delete(caller, gone, request_id="r")
    with pytest.raises(NotFound):
        await bench.images.get(caller, gone)
    assert await bench.objects(caller) == 1
    await bench.runner.contexts.blobs(caller).put(f"images/{new_id()}/content", b"left by a crash")
    monkeypatch.setattr(housekeeping, "_ORPHAN_S", -1)
    assert await bench.images.sweep() == 1
    assert (await bench.images.content(caller, stays))[1] == data["cut"]


async def test_a_list_goes_on_page_by_page(db: Database, bench: Bench) -> None:
    """Newest first, each once."""
    caller = await new_principal(db)
    whole = photograph("china").resize((80, 60))
    ids = [await bench.add(caller, jpeg(whole, quality=quality)) for quality in (50, 60, 70)]
    first = await bench.images.page(caller, limit=2, before=None)
    rest = await bench.images.page(caller, limit=2, before=first[-1].id)
    assert [image.id for image in [*first, *rest]] == ids[::-1]
