"""Neural machine translation on CTranslate2, with the sentence pieces (Kudo & Richardson 2018) each model was made for.

Four layouts of a model's folder are read:

- opus: model.bin, source.spm, target.spm (OPUS-MT, Tiedemann & Thottingal 2020, converted);
- nllb: model.bin, sentencepiece.bpe.model (NLLB-200, Costa-jussà et al. 2022); languages as FLORES codes;
- argos: metadata.json, model/, sentencepiece.model, or the same as one .argosmodel file (Argos Translate);
- indictrans2: model.bin, model.SRC, model.TGT (Gala et al. 2023); Indian scripts go through Devanagari.
"""

import json
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.contract.models import Translated
from neuroedge.runtimes.device import split
from neuroedge.runtimes.threaded import Threaded

Layout = Literal["opus", "nllb", "argos", "indictrans2"]
MOST_PIECES: Final = 400
"""Of one text: models were trained on sentences."""
_MOST_WAITING_CHARS: Final = 200_000.0
_BATCH: Final = 16
_MOST_ARCHIVE_BYTES: Final = 8 << 30
_BEAM: Final = 4
_WORD_START: Final = "▁"
FLORES: Final[Mapping[str, str]] = {
    "ar": "arb_Arab",
    "as": "asm_Beng",
    "bg": "bul_Cyrl",
    "bn": "ben_Beng",
    "cs": "ces_Latn",
    "da": "dan_Latn",
    "de": "deu_Latn",
    "el": "ell_Grek",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "et": "est_Latn",
    "fa": "pes_Arab",
    "fi": "fin_Latn",
    "fr": "fra_Latn",
    "gu": "guj_Gujr",
    "he": "heb_Hebr",
    "hi": "hin_Deva",
    "hr": "hrv_Latn",
    "hu": "hun_Latn",
    "id": "ind_Latn",
    "it": "ita_Latn",
    "ja": "jpn_Jpan",
    "kn": "kan_Knda",
    "ko": "kor_Hang",
    "lt": "lit_Latn",
    "lv": "lvs_Latn",
    "ml": "mal_Mlym",
    "mr": "mar_Deva",
    "ne": "npi_Deva",
    "nl": "nld_Latn",
    "no": "nob_Latn",
    "or": "ory_Orya",
    "pa": "pan_Guru",
    "pl": "pol_Latn",
    "pt": "por_Latn",
    "ro": "ron_Latn",
    "ru": "rus_Cyrl",
    "sa": "san_Deva",
    "sk": "slk_Latn",
    "sl": "slv_Latn",
    "sr": "srp_Cyrl",
    "sv": "swe_Latn",
    "sw": "swh_Latn",
    "ta": "tam_Taml",
    "te": "tel_Telu",
    "th": "tha_Thai",
    "tr": "tur_Latn",
    "uk": "ukr_Cyrl",
    "ur": "urd_Arab",
    "vi": "vie_Latn",
    "zh": "zho_Hans",
}
"""Codes that NLLB and IndicTrans2 name languages by."""
_DEVANAGARI: Final = 0x0900
_BLOCKS: Final = {
    "Beng": 0x0980,
    "Guru": 0x0A00,
    "Gujr": 0x0A80,
    "Orya": 0x0B00,
    "Taml": 0x0B80,
    "Telu": 0x0C00,
    "Knda": 0x0C80,
    "Mlym": 0x0D00,
}
"""First code point of the scripts that Unicode lays out as Devanagari (after ISCII)."""
_BLOCK: Final = 0x80
_SHARED: Final = (0x0964, 0x0965)
"""Dandas: of Devanagari's block, and of all these scripts."""
_INDIC: Final = frozenset({*(code for code, name in FLORES.items() if name.split("_")[1] in _BLOCKS), "hi", "mr"}) | {
    "ne",
    "sa",
    "ur",
}
_SIGN: Final = re.compile(r"([^\w\s])")
_BEFORE_SIGN: Final = re.compile(r"\s+([,.;:!?%)\]}।॥])")
_AFTER_SIGN: Final = re.compile(r"([(\[{])\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How a model's texts become pieces and come back."""

    layout: Layout
    encode: Any
    """A SentencePieceProcessor of the source."""
    pairs: frozenset[tuple[str, str]]
    """Language pairs; none: all of `languages`."""
    languages: frozenset[str] = frozenset()
    target_tokens: Mapping[str, str] | None = None
    """What an opus model of several targets wants before a text, by language: ">>hin<<"."""
    target_prefix: str = ""
    """What every target of an argos model begins with."""

    def serves(self, source: str, target: str) -> bool:
        """Whether it is a pair of the model's."""
        if self.pairs:
            return (source, target) in self.pairs
        if self.layout == "indictrans2" and source in _INDIC and target in _INDIC:
            return False  # models of this kind go from or to English
        return source != target and {source, target} <= self.languages

    def pieces(self, text: str, source: str, target: str) -> list[str]:
        """A text as the model reads it."""
        if self.layout == "indictrans2":
            script = FLORES[source].split("_")[1]
            spaced = " ".join(_SIGN.sub(r" \1 ", moved(text, script, "Deva")).split())
            return [FLORES[source], FLORES[target], *self.encode.encode(spaced, out_type=str)]
        found: list[str] = self.encode.encode(text, out_type=str)
        if self.layout == "nllb":
            return [FLORES[source], *found, "</s>"]
        token = (self.target_tokens or {}).get(target)
        return [token, *found] if token else found

    def prefix(self, target: str) -> list[str] | None:
        """What the model's answer has to begin with."""
        if self.layout == "nllb":
            return [FLORES[target]]
        return [self.target_prefix] if self.target_prefix else None

    def text(self, pieces: Sequence[str], target: str) -> str:
        """An answer as one reads it."""
        begin = self.prefix(target) or []
        kept = pieces[len(begin) :] if list(pieces[: len(begin)]) == begin else pieces
        joined = "".join(kept).replace(_WORD_START, " ").strip()
        if self.layout != "indictrans2":
            return joined
        close = _AFTER_SIGN.sub(r"\1", _BEFORE_SIGN.sub(r"\1", joined))
        return moved(close, "Deva", FLORES[target].split("_")[1])


def moved(text: str, script: str, into: str) -> str:
    """`text` with the letters of one Indian script in the same places of another; other scripts stay as they are."""
    first, other = _BLOCKS.get(script, _DEVANAGARI), _BLOCKS.get(into, _DEVANAGARI)
    if first == other or (script not in _BLOCKS and script != "Deva") or (into not in _BLOCKS and into != "Deva"):
        return text
    return "".join(
        chr(ord(c) - first + other) if first <= ord(c) < first + _BLOCK and ord(c) not in _SHARED else c for c in text
    )


def load(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "CTranslate2Translator":
    """Open a model in one of the layouts. Raises ModelUnavailable; never fetches anything.

    Options: pairs (["en-hi"]; needed for opus), languages (of nllb and indictrans2; all of FLORES if absent),
    target_tokens ({hi = ">>hin<<"}, for opus models of several targets), device, compute_type ("int8"), beam_size (4).
    """
    packed = sorted(folder.glob("*.argosmodel"))
    try:
        if not packed:
            return _open(model_id, folder, threads=threads, options=options)
        with tempfile.TemporaryDirectory() as unpacked:
            return _open(model_id, _unpack(packed[0], Path(unpacked)), threads=threads, options=options)
    except (RuntimeError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelUnavailable(
            f"{model_id} does not load: {error}", hint=f"run `neuroedge models verify {model_id}`"
        ) from error


def _unpack(archive: Path, into: Path) -> Path:
    """The package's folder; zipfile keeps members inside `into`."""
    with zipfile.ZipFile(archive) as package:
        if sum(member.file_size for member in package.infolist()) > _MOST_ARCHIVE_BYTES:
            raise ValueError(f"{archive.name} holds more than {_MOST_ARCHIVE_BYTES >> 30} GiB")
        names = [name for name in package.namelist() if PurePosixPath(name).name == "metadata.json"]
        if len(names) != 1:
            raise ValueError(f"{archive.name} is no Argos package: it has {len(names)} files metadata.json")
        package.extractall(into)
    return (into / names[0]).parent


def _open(model_id: str, folder: Path, *, threads: int, options: Mapping[str, Any]) -> "CTranslate2Translator":
    codec, weights = _codec(model_id, folder, options)
    if not (weights / "model.bin").is_file():
        raise ModelUnavailable(f"{model_id} lacks model.bin", hint=f"run `neuroedge models pull {model_id}`")
    import ctranslate2

    device, index = split(str(options.get("device", "cpu")))
    translator = ctranslate2.Translator(
        str(weights),
        device="cpu" if device == "mps" else device,  # CTranslate2 knows no Apple GPU
        device_index=index,
        compute_type=str(options.get("compute_type", "int8")),
        inter_threads=1,
        intra_threads=threads,
    )
    return CTranslate2Translator(model_id, translator, codec, beam_size=int(options.get("beam_size", _BEAM)))


def _codec(model_id: str, folder: Path, options: Mapping[str, Any]) -> tuple[Codec, Path]:
    from sentencepiece import SentencePieceProcessor

    def pieces(name: str) -> Any:
        return SentencePieceProcessor(model_file=str(folder / name))

    pairs = frozenset(_pair(model_id, str(pair)) for pair in options.get("pairs", ()))
    languages = frozenset(str(code) for code in options.get("languages", FLORES)) & frozenset(FLORES)
    if (folder / "metadata.json").is_file():
        about = json.loads((folder / "metadata.json").read_text())
        if not (folder / "sentencepiece.model").is_file():
            raise ValueError("this Argos package has no sentencepiece.model; older ones with BPE are not read")
        pair = frozenset({(str(about["from_code"]), str(about["to_code"]))})
        prefix = str(about.get("target_prefix") or "")
        encode = pieces("sentencepiece.model")
        return Codec(layout="argos", encode=encode, pairs=pair, target_prefix=prefix), folder / "model"
    if (folder / "source.spm").is_file():
        if not pairs:
            raise ValueError('an OPUS-MT model needs the option pairs, as in pairs = ["en-hi"]')
        tokens = options.get("target_tokens")
        return Codec(layout="opus", encode=pieces("source.spm"), pairs=pairs, target_tokens=tokens), folder
    if (folder / "model.SRC").is_file():
        return Codec(layout="indictrans2", encode=pieces("model.SRC"), pairs=pairs, languages=languages), folder
    if (folder / "sentencepiece.bpe.model").is_file():
        encode = pieces("sentencepiece.bpe.model")
        return Codec(layout="nllb", encode=encode, pairs=pairs, languages=languages), folder
    raise ModelUnavailable(
        f"{model_id} has none of source.spm, sentencepiece.bpe.model, model.SRC, metadata.json",
        hint="docs/engines/translation.md tells the layouts of a translation model",
    )


def _pair(model_id: str, pair: str) -> tuple[str, str]:
    source, _, target = pair.partition("-")
    if not source or not target:
        raise ModelUnavailable(f"{model_id}: {pair!r} is no pair of languages", hint='write pairs = ["en-hi"]')
    return source, target


class CTranslate2Translator(Threaded):
    """Translator over CTranslate2."""

    def __init__(self, model_id: str, translator: Any, codec: Codec, *, beam_size: int) -> None:
        super().__init__(model_id, max_waiting=_MOST_WAITING_CHARS)
        self._translator = translator
        self._codec = codec
        self._beam_size = beam_size

    def serves(self, source: str, target: str) -> bool:
        """Whether it translates between these languages."""
        return self._codec.serves(source, target)

    async def translate(self, texts: Sequence[str], *, source: str, target: str) -> list[Translated]:
        """Each text in the target language, in order; see Translator."""
        if not self.serves(source, target):
            raise InvalidInput(f"{self.model_id} does not translate from {source} to {target}")
        cost = float(sum(len(text) for text in texts))
        return await self._in_thread(lambda: self._translate(texts, source, target), cost=cost)

    def close(self) -> None:
        """Free the model."""
        super().close()
        self._translator.unload_model()

    def _translate(self, texts: Sequence[str], source: str, target: str) -> list[Translated]:
        found: list[Translated] = []
        prefix = self._codec.prefix(target)
        for at in range(0, len(texts), _BATCH):
            self._alive()
            batch = [self._codec.pieces(text, source, target) for text in texts[at : at + _BATCH]]
            longest = max(len(pieces) for pieces in batch)
            if longest > MOST_PIECES:
                raise InvalidInput(f"a sentence has {longest} pieces; {self.model_id} reads {MOST_PIECES} at once")
            answers = self._translator.translate_batch(
                batch,
                target_prefix=None if prefix is None else [prefix] * len(batch),
                beam_size=self._beam_size,
                max_decoding_length=2 * longest + 16,
                return_scores=True,
                replace_unknowns=True,
            )
            for answer in answers:
                pieces = answer.hypotheses[0]
                text = self._codec.text(pieces, target)
                found.append(Translated(text=text, score=float(answer.scores[0])))
        return found
