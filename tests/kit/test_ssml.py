"""SSML: what each element comes to, and what is refused, with its line."""

import math
import re

import pytest

from neuroedge.kit.ssml import DEEPEST, MOST_ELEMENTS, Manner, Part, Pause, Saying, SsmlError, plain, read


def one(inner: str) -> Saying:
    """The only saying of a document."""
    (saying,) = (item for item in read(f"<speak>{inner}</speak>") if isinstance(item, Saying))
    return saying


def words(items: list[Saying | Pause]) -> list[str]:
    """Texts of sayings; pauses as their seconds."""
    return [
        f"{item.seconds:g}" if isinstance(item, Pause) else "".join(part.text for part in item.parts).strip()
        for item in items
    ]


def test_text_between_markup_is_said_in_its_order() -> None:
    """Before, within and after an element; white space is one space."""
    assert words(read("<speak>One\n two <emphasis>three</emphasis> four</speak>")) == ["One two", "three", "four"]


def test_pauses_are_as_long_as_asked() -> None:
    """By time or by strength; a paragraph ends in one, the last leaves none."""
    told = read('<speak>a<break time="250ms"/>b<break time="1.5s"/>c<break strength="strong"/>d<break/>e</speak>')
    assert words(told) == ["a", "0.25", "b", "1.5", "c", "0.75", "d", "0.4", "e"]
    assert words(read("<speak><p>One.</p><p>Two.</p></speak>")) == ["One.", "0.6", "Two."]


@pytest.mark.parametrize(
    ("attributes", "manner"),
    [
        ('rate="slow"', Manner(rate=0.75)),
        ('rate="150%"', Manner(rate=1.5)),
        ('rate="+20%"', Manner(rate=1.2)),
        ('rate="0.5"', Manner(rate=0.5)),
        ('pitch="high"', Manner(pitch=1.1)),
        ('pitch="-10%"', Manner(pitch=0.9)),
        ('pitch="+12st"', Manner(pitch=2.0)),
        ('volume="+6dB"', Manner(volume_db=6.0)),
        ('volume="soft"', Manner(volume_db=-6.0)),
        ('volume="silent"', Manner(volume_db=-math.inf)),
    ],
)
def test_prosody_is_read_as_the_standard_has_it(attributes: str, manner: Manner) -> None:
    """Names, percentages, semitones and decibels."""
    assert one(f"<prosody {attributes}>x</prosody>").manner == manner


def test_prosody_within_prosody_is_multiplied() -> None:
    """And voices and languages reach inwards."""
    inner = '<prosody rate="50%"><voice name="joe"><lang xml:lang="de">x</lang></voice></prosody>'
    saying = one(f'<prosody rate="200%">{inner}</prosody>')
    assert saying.manner == Manner(rate=1.0, voice="joe", language="de")


def test_what_is_read_otherwise_is_part_of_its_sentence() -> None:
    """Numbers, dates, spelling, substitutes and pronunciations."""
    saying = one(
        'On the <say-as interpret-as="ordinal">22</say-as> call <say-as interpret-as="telephone">555-12</say-as> '
        '<sub alias="World Health Organisation">WHO</sub> for <phoneme alphabet="ipa" ph="kæt">cat</phoneme>.'
    )
    assert saying.parts == (
        Part(text="On the 22nd call 5 5 5, 1 2 World Health Organisation for "),
        Part(text="cat", ipa="kæt"),
        Part(text="."),
    )


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "no element"),
        ("hello", "syntax"),
        ("<speak>", "no element"),
        ("<speak>\n<b>x</b></speak>", "line 2: <b>"),
        ("<p>x</p>", "<speak> must enclose"),
        ("<speak><speak>x</speak></speak>", "<speak> must enclose"),
        ("<speak>&nbsp;</speak>", "undefined entity"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><speak>&b;</speak>', "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><speak>x</speak>', "document type"),
        ("<?php x ?><speak>x</speak>", "instructions"),
        ('<speak><break time="99s"/></speak>', "0ms to 10s"),
        ('<speak><break time="-1s"/></speak>', "0ms to 10s"),
        ('<speak><break strength="huge"/></speak>', "strength 'huge'"),
        ('<speak><prosody rate="0">x</prosody></speak>', "rate comes to 0"),
        ('<speak><prosody rate="nan">x</prosody></speak>', "rate 'nan'"),
        ('<speak><prosody rate="1e3">x</prosody></speak>', "rate '1e3'"),
        ('<speak><prosody pitch="+30st">x</prosody></speak>', "pitch comes to"),
        ('<speak><prosody volume="100">x</prosody></speak>', "volume '100'"),
        ('<speak><say-as interpret-as="vxml:date">x</say-as></speak>', "say-as 'vxml:date'"),
        ('<speak><say-as interpret-as="ordinal">x</say-as></speak>', "no whole number"),
        ('<speak><phoneme alphabet="x-sampa" ph="x">x</phoneme></speak>', "ipa"),
        ("<speak><phoneme>x</phoneme></speak>", "needs ph"),
        ("<speak><sub>x</sub></speak>", "alias"),
        ('<speak><sub alias="x"><p>x</p></sub></speak>', "cannot stand within"),
        ('<speak><lang xml:lang="?">x</lang></speak>', "no language"),
        ("<speak><prosody tone='x'>x</prosody></speak>", "no attribute 'tone'"),
        ("<speak>" + "<s>" * DEEPEST + "</s>" * DEEPEST + "</speak>", "within each other"),
        ("<speak>" + "<break/>" * (MOST_ELEMENTS + 1) + "</speak>", "elements"),
        ("<speak>\ud800</speak>", "half a character"),
    ],
)
def test_what_is_not_of_the_subset_is_told(document: str, told: str) -> None:
    """Nothing is guessed, nothing is fetched and nothing grows."""
    with pytest.raises(SsmlError, match=re.escape(told)):
        read(document)


def test_plain_text_keeps_its_paragraphs() -> None:
    """Empty lines are pauses; markup is text."""
    assert words(plain("One <b>.\nStill one.\n\n\nTwo.", manner=Manner())) == ["One <b>. Still one.", "0.6", "Two."]
    assert plain(" \n ", manner=Manner()) == []
