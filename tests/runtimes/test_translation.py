"""The translation runtime on real CTranslate2 models of each layout, made here; their weights say a dictionary."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuroedge.contract.errors import InvalidInput, ModelUnavailable
from neuroedge.runtimes.opening import RUNTIMES
from neuroedge.runtimes.translation import MOST_PIECES, CTranslate2Translator, load, moved
from tests.dictionary_translator import write_argos, write_pieces, write_weights

pytestmark = pytest.mark.anyio
WORDS = {"the": "das", "house": "Haus", "is": "ist", "big": "groß"}
PIECES = {f"▁{a}": f"▁{b}" for a, b in WORDS.items()}


def _open(folder: Path, **options: Any) -> CTranslate2Translator:
    return load("tiny", folder, threads=1, options={"compute_type": "float32", **options})


@pytest.fixture
def argos(tmp_path: Path) -> Iterator[CTranslate2Translator]:
    """An Argos package of en to de."""
    write_argos(tmp_path / "argos", WORDS, source="en", target="de")
    model = _open(tmp_path / "argos")
    yield model
    model.close()


def test_the_catalogue_can_name_it() -> None:
    """The runtime is listed."""
    assert RUNTIMES["ctranslate2-translation"] == "neuroedge.runtimes.translation"


async def test_an_argos_package_translates_its_pair(argos: CTranslate2Translator) -> None:
    """Pieces in, words out, in order, with a probability; more texts than one batch."""
    assert argos.serves("en", "de")
    assert not argos.serves("de", "en")
    found = await argos.translate(["the house is big", "big"] * 10, source="en", target="de")
    assert [each.text for each in found] == ["das Haus ist groß", "groß"] * 10
    assert all(each.score <= 0 for each in found)


async def test_an_argos_file_is_read_as_it_is_downloaded(tmp_path: Path) -> None:
    """The .argosmodel is a zip with the folder inside."""
    write_argos(tmp_path / "translate-en_de-1_0", WORDS, source="en", target="de")
    (tmp_path / "model").mkdir()
    with zipfile.ZipFile(tmp_path / "model" / "en_de.argosmodel", "w") as package:
        for file in sorted((tmp_path / "translate-en_de-1_0").rglob("*")):
            package.write(file, file.relative_to(tmp_path))
    model = _open(tmp_path / "model")
    assert [t.text for t in await model.translate(["the house"], source="en", target="de")] == ["das Haus"]
    model.close()


async def test_an_opus_model_gets_the_token_of_its_target(tmp_path: Path) -> None:
    """Several targets: the token stands before the text, and the dictionary says it back here."""
    write_weights(tmp_path, PIECES, tags=[">>deu<<"])
    write_pieces(tmp_path / "source.spm", list(WORDS))
    write_pieces(tmp_path / "target.spm", list(WORDS.values()))
    model = _open(tmp_path, pairs=["en-de"], target_tokens={"de": ">>deu<<"})
    assert [t.text for t in await model.translate(["big house"], source="en", target="de")] == [">>deu<< groß Haus"]
    model.close()


async def test_nllb_names_languages_by_flores_codes(tmp_path: Path) -> None:
    """Source code before the text, target code forced at the beginning and not shown."""
    # The forced prefix takes the place of the source's code, so words stay in their places.
    write_weights(tmp_path, PIECES, tags=["eng_Latn", "deu_Latn"], own_end=True)
    write_pieces(tmp_path / "sentencepiece.bpe.model", list(WORDS))
    model = _open(tmp_path, languages=["en", "de", "hi"])
    assert model.serves("de", "hi")
    assert not model.serves("en", "fr")
    assert [t.text for t in await model.translate(["the house"], source="en", target="de")] == ["das Haus"]
    model.close()


async def test_indictrans2_goes_through_devanagari(tmp_path: Path) -> None:
    """A Tamil answer is Devanagari in the model and Tamil for the reader; signs are spaced for it."""
    words = {"▁house": "▁घर", "▁.": "▁."}
    write_weights(tmp_path, words, tags=["eng_Latn", "tam_Taml"])
    write_pieces(tmp_path / "model.SRC", ["house", "."])
    model = _open(tmp_path)
    assert model.serves("en", "ta")
    assert not model.serves("hi", "ta")
    (found,) = await model.translate(["house."], source="en", target="ta")
    assert found.text == "eng_Latntam_Taml ஘ர."
    model.close()


async def test_ten_languages_of_india_are_served_by_both_layouts(tmp_path: Path) -> None:
    """From English each; NLLB also among themselves, to which IndicTrans2's models into Indian languages do not go."""
    indian = ("hi", "bn", "ta", "te", "mr", "gu", "kn", "ml", "pa", "or")
    for name, pieces in (("nllb", ["sentencepiece.bpe.model"]), ("indic", ["model.SRC", "model.TGT"])):
        (tmp_path / name).mkdir()
        write_weights(tmp_path / name, PIECES, tags=["eng_Latn", "hin_Deva"], own_end=name == "nllb")
        for file in pieces:
            write_pieces(tmp_path / name / file, list(WORDS))
        model = _open(tmp_path / name)
        assert all(model.serves("en", language) for language in indian)
        assert model.serves("ta", "or") == (name == "nllb")
        model.close()


def test_scripts_of_india_are_laid_out_alike() -> None:
    """Bengali to Devanagari and back; dandas and other scripts stay."""
    assert moved("ঘর। ok", "Beng", "Deva") == "घर। ok"
    assert moved("घर।", "Deva", "Beng") == "ঘর।"
    assert moved("house", "Latn", "Deva") == "house"


async def test_other_languages_and_endless_sentences_are_refused(argos: CTranslate2Translator) -> None:
    """Before the model is asked."""
    with pytest.raises(InvalidInput, match="does not translate from en to fr"):
        await argos.translate(["the"], source="en", target="fr")
    with pytest.raises(InvalidInput, match="pieces"):
        await argos.translate(["the " * (MOST_PIECES + 1)], source="en", target="de")


def _nothing(folder: Path) -> None:
    """An empty folder."""


def _no_weights(folder: Path) -> None:
    write_argos(folder, WORDS, source="en", target="de")
    (folder / "model" / "model.bin").unlink()


def _broken_weights(folder: Path) -> None:
    write_argos(folder, WORDS, source="en", target="de")
    (folder / "model" / "model.bin").write_bytes(b"no model")


def _no_pairs(folder: Path) -> None:
    write_pieces(folder / "source.spm", list(WORDS))


def _old_argos(folder: Path) -> None:
    (folder / "metadata.json").write_text(json.dumps({"from_code": "en", "to_code": "de"}))


def _no_zip(folder: Path) -> None:
    (folder / "x.argosmodel").write_bytes(b"no zip")


def _zip_of_something_else(folder: Path) -> None:
    with zipfile.ZipFile(folder / "x.argosmodel", "w") as package:
        package.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_nothing, "has none of"),
        (_no_weights, "lacks model.bin"),
        (_broken_weights, "does not load"),
        (_no_pairs, "needs the option pairs"),
        (_old_argos, "no sentencepiece.model"),
        (_no_zip, "does not load"),
        (_zip_of_something_else, "no Argos package"),
    ],
)
def test_a_folder_that_is_no_model_is_told_with_a_remedy(tmp_path: Path, make: Any, why: str) -> None:
    """ModelUnavailable, never the library's own error."""
    make(tmp_path)
    with pytest.raises(ModelUnavailable, match=why) as told:
        _open(tmp_path)
    assert told.value.hint


def test_a_pair_that_is_none_is_refused(tmp_path: Path) -> None:
    """In the catalogue's options."""
    write_pieces(tmp_path / "source.spm", list(WORDS))
    with pytest.raises(ModelUnavailable, match="no pair"):
        _open(tmp_path, pairs=["english"])
