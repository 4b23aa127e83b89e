"""National identifiers and telephone numbers in a text, by Microsoft's presidio (MIT): patterns, check digits, and
words nearby that speak for them. No model and no network: names are a parser's to find (role entities), and what looks
the same in every country is found by kit/personal_data.py.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from neuroedge.kit.personal_data import Found

RECOGNISERS: Final = (
    *("UsSsnRecognizer", "UsItinRecognizer", "UsPassportRecognizer", "UsLicenseRecognizer", "UsBankRecognizer"),
    *("UsMbiRecognizer", "UsNpiRecognizer", "AbaRoutingRecognizer", "MedicalLicenseRecognizer"),
    *("NhsRecognizer", "UkNinoRecognizer", "UkPassportRecognizer"),
    *("EsNifRecognizer", "EsNieRecognizer", "FiPersonalIdentityCodeRecognizer"),
    *("ItFiscalCodeRecognizer", "ItIdentityCardRecognizer", "ItPassportRecognizer", "ItDriverLicenseRecognizer"),
    *("InPanRecognizer", "InAadhaarRecognizer", "InPassportRecognizer", "InVoterRecognizer"),
    *("AuTfnRecognizer", "AuMedicareRecognizer", "SgFinRecognizer", "ThTninRecognizer", "KrRrnRecognizer"),
    *("NgNinRecognizer", "CryptoRecognizer", "MacAddressRecognizer"),
)
"""Without the Polish PESEL, whose check digit presidio 2.2 takes for its complement."""
PHONE_REGIONS: Final = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "BR", "AU")
"""Whose national ways of writing a number are known; with a country code all are."""
LEAST_SCORE: Final = 0.4
"""What presidio gives a pattern without check digits once a word nearby speaks for it, and a valid telephone number."""
_LANGUAGE: Final = "en"
_PIECE_CHARS: Final = 8_000
_OVERLAP_CHARS: Final = 200
LONGEST_CHARS: Final = 200_000
"""About two seconds of work; of a longer text the beginning is looked through."""


class NationalIdentifiers:
    """Finds them in a thread of its own; presidio is imported and built with the first text."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="presidio")
        self._analyzer: Any = None

    async def find(self, text: str) -> list[Found]:
        """Those whose score is at least LEAST_SCORE, in the first 200,000 characters; some may overlap."""
        found: dict[tuple[int, int, str], float] = {}
        loop = asyncio.get_running_loop()
        end = min(len(text), LONGEST_CHARS)
        for start in range(0, end, _PIECE_CHARS - _OVERLAP_CHARS):
            piece = text[start : min(start + _PIECE_CHARS, end)]
            if not any(c.isdigit() for c in piece):  # every one of them has digits
                continue
            for hit in await loop.run_in_executor(self._thread, self._in_piece, piece):
                # Where pieces overlap both have it, one perhaps without the words that speak for it.
                place = start + hit.start, start + hit.end, hit.type
                found[place] = max(hit.score, found.get(place, 0.0))
        return sorted(Found(*place, score) for place, score in found.items())

    def close(self) -> None:
        """Wait for the text at hand and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _in_piece(self, text: str) -> list[Found]:
        if self._analyzer is None:
            self._analyzer = _analyzer()
        results = self._analyzer.analyze(text=text, language=_LANGUAGE, score_threshold=LEAST_SCORE)
        return [Found(r.start, r.end, r.entity_type, float(r.score)) for r in results]


def _analyzer() -> Any:
    """presidio's analyser with our recognisers and, in place of a language model, a tokeniser."""
    import logging

    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)

    class Tokens(NlpEngine):  # type: ignore[misc, unused-ignore]
        """Words and their places, from spaCy's rules for English; no model, no entities."""

        def __init__(self) -> None:
            self._pipeline = spacy.blank(_LANGUAGE)

        def load(self) -> None:
            """Nothing to load."""

        def is_loaded(self) -> bool:
            return True

        def process_text(self, text: str, language: str) -> NlpArtifacts:
            with self._pipeline.memory_zone():  # else every word ever seen is kept
                doc = self._pipeline.make_doc(text)
                words = [token.lower_ for token in doc]
                places = [token.idx for token in doc]
            tokens: Any = [_Word(word) for word in words]
            return NlpArtifacts([], tokens, places, words, self, language)

        def process_batch(self, texts: Any, language: str, batch_size: int = 1, n_process: int = 1, **_: Any) -> Any:
            for text in texts:
                yield text, self.process_text(text, language)

        def is_stopword(self, word: str, language: str) -> bool:
            return bool(self._pipeline.vocab[word].is_stop)

        def is_punct(self, word: str, language: str) -> bool:
            return bool(self._pipeline.vocab[word].is_punct)

        def get_supported_entities(self) -> list[str]:
            return []

        def get_supported_languages(self) -> list[str]:
            return [_LANGUAGE]

    recognisers = [getattr(predefined_recognizers, name)(supported_language=_LANGUAGE) for name in RECOGNISERS]
    recognisers.append(predefined_recognizers.PhoneRecognizer(supported_regions=PHONE_REGIONS))
    return AnalyzerEngine(
        registry=RecognizerRegistry(recognisers), nlp_engine=Tokens(), supported_languages=[_LANGUAGE]
    )


class _Word(str):
    """A token as presidio asks for its text."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return str(self)
