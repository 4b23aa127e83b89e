"""Scanned pages of documents through the `ocr` engine, as the caller whose document it is."""

import base64
from typing import cast

from neuroedge.contract.errors import EmptyMedia, TooLarge, UnreadableMedia
from neuroedge.contract.ports import ImageSource
from neuroedge.contract.principal import Principal
from neuroedge.engines.vision.ocr import Input, Output
from neuroedge.kit.chunking import Block
from neuroedge.services.run_engine import EngineRunner

MAX_PAGES = 500
"""Of one TIFF file."""


class EnginePageReader:
    """A LeafReader for one caller's document."""

    def __init__(self, runner: EngineRunner, principal: Principal, *, request_id: str, model_id: str) -> None:
        self.model_id = model_id
        self._runner = runner
        self._principal = principal
        self._request_id = request_id

    async def read(self, image: bytes, *, page: int | None) -> list[Block]:
        """A block for each paragraph, with `page`; of a TIFF file of several pages all of them, with their own number.

        Raises UnreadableMedia naming the page, TooLarge, UnsupportedMedia, and what running an engine raises.
        """
        if page is not None:
            return _blocks(await self._answer(image, 1, named=page), page)
        blocks, pages = await self.leaf(image, number=1)
        for number in range(2, pages + 1):
            blocks += (await self.leaf(image, number=number))[0]
        return blocks

    async def leaf(self, image: bytes, *, number: int) -> tuple[list[Block], int]:
        """One page of an image file, and how many it has; a single page has no number.

        Raises what `read` raises.
        """
        answer = await self._answer(image, number, named=number)
        if answer.pages > MAX_PAGES:
            raise TooLarge(f"the file has {answer.pages} pages, more than {MAX_PAGES}", hint="split it")
        return _blocks(answer, number if answer.pages > 1 else None), answer.pages

    async def _answer(self, image: bytes, number: int, *, named: int) -> Output:
        source = ImageSource(base64=base64.b64encode(image).decode())
        try:
            answer = await self._runner.run(
                "ocr", Input(image=source, page=number), principal=self._principal, request_id=self._request_id
            )
        except (UnreadableMedia, EmptyMedia) as error:
            raise UnreadableMedia(f"page {named}: {error.detail}", hint=error.hint) from error
        return cast(Output, answer)


def _blocks(answer: Output, page: int | None) -> list[Block]:
    return [Block(type="paragraph", text=text, page=page) for text in answer.text.split("\n\n") if text]
