"""Names, sentences and dependencies by a spaCy pipeline (Honnibal et al. 2020; MIT), read from the model's folder.

The shipped pipeline is explosion's en_core_web_sm 3.8 (MIT; trained on OntoNotes 5): English, one core, no torch.
"""

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from neuroedge.contract.errors import ModelUnavailable
from neuroedge.kit.parse import NameSpan, ParsedText, Token, TokenSpan
from neuroedge.runtimes.threaded import Threaded

_MAX_WAITING_CHARS: Final = 2_000_000.0
_NEEDED: Final = frozenset({"parser", "tagger", "lemmatizer", "ner"})
_BATCH_TEXTS: Final = 16
_HALF_PAIRS: Final = re.compile("[\ud800-\udfff]")
"""JSON can carry halves of surrogate pairs; no library that keeps text as UTF-8 takes them."""


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "SpacyParser":
    """Open the pipeline in `folder`; `threads` is not used: the library computes on one.

    Raises ModelUnavailable, also for a pipeline without parser, tagger, lemmatizer or names.
    """
    import spacy

    try:
        pipeline = spacy.load(folder, exclude=["senter"])
    except Exception as error:  # the library raises what its parts raise: OSError, ValueError, KeyError, msgpack's own
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error
    if missing := _NEEDED - set(pipeline.pipe_names):
        raise ModelUnavailable(
            f"the pipeline {model_id} has no {', '.join(sorted(missing))}", hint="choose a complete spaCy pipeline"
        )
    return SpacyParser(model_id, pipeline)


class SpacyParser(Threaded):
    """TextParser over a spaCy pipeline."""

    def __init__(self, model_id: str, pipeline: Any) -> None:
        super().__init__(model_id, cores=1, max_waiting=_MAX_WAITING_CHARS)
        self._pipeline = pipeline

    async def parse(self, texts: Sequence[str]) -> list[ParsedText]:
        """A parse of each text, in order; a cancelled call stops after the text it is at."""
        stop = threading.Event()
        try:
            return await self._in_thread(lambda: self._parse(texts, stop), cost=sum(map(len, texts)) or 1.0)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _parse(self, texts: Sequence[str], stop: threading.Event) -> list[ParsedText]:
        parsed: list[ParsedText] = []
        plain = [_HALF_PAIRS.sub("\ufffd", text) for text in texts]  # one for one: places stay true
        # Strings seen are forgotten with the zone: otherwise the vocabulary grows with every text ever parsed.
        with self._pipeline.memory_zone():
            for doc in self._pipeline.pipe(plain, batch_size=_BATCH_TEXTS):
                parsed.append(_plain(doc))
                self._alive()
                if stop.is_set():
                    break
        return parsed

    def close(self) -> None:
        """Wait for the running parse and free the pipeline."""
        super().close()
        self._pipeline = None


def _plain(doc: Any) -> ParsedText:
    return ParsedText(
        tokens=tuple(
            Token(
                text=token.text,
                lemma=token.lemma_,
                pos=token.pos_,
                tag=token.tag_,
                dep=token.dep_,
                head=token.head.i,
                start=token.idx,
                end=token.idx + len(token.text),
            )
            for token in doc
        ),
        sentences=tuple(TokenSpan(first=sentence.start, stop=sentence.end) for sentence in doc.sents),
        names=tuple(NameSpan(label=name.label_, first=name.start, stop=name.end) for name in doc.ents),
    )
