"""A title from a session's first question, taken from its own words: at once, and without asking a model."""

import re
from typing import Final

LENGTH: Final = 60
"""Characters that a list of sessions shows on one line."""
_BLOCK: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MARKS: Final = re.compile(r"^\s*(?:#{1,6}|>|[-*+]|\d{1,3}[.)])\s+|[*_`~]{1,3}", re.MULTILINE)
_LINK: Final = re.compile(r"!?\[([^\]]{0,500})\]\([^)\s]{0,2000}[^)]{0,200}\)")
_SENTENCE: Final = re.compile(r"[^.!?\n。！？]+[.!?。！？]*", re.DOTALL)
_GREETING: Final = re.compile(
    r"^\W*(?:(?:hi|hello|hey|good (?:morning|afternoon|evening)|greetings|hallo|guten (?:morgen|tag|abend)|bonjour|"
    r"salut|hola|ciao|namaste|thanks?(?: you)?|please|dear \w+)\b(?:\s+(?:there|all|everyone|team|assistant))?"
    r"[\s,!.:;–-]*)+",
    re.IGNORECASE,
)
_OPENING: Final = re.compile(
    r"^(?:(?:can|could|would|will) you (?:please |kindly )?|i(?: would|'d) like (?:you )?to |i want (?:you )?to |"
    r"i need (?:you )?to |please |kindly |help me (?:to )?)",
    re.IGNORECASE,
)


def title_of(question: str) -> str | None:
    """The first sentence that says something, without greeting, courtesies and Markdown, at most LENGTH characters.

    None for a question without letters or digits.
    """
    head = question[:4000]  # what is quoted below does not name the question
    plain = _MARKS.sub("", _LINK.sub(r"\1", _BLOCK.sub("\n", head)))
    for text in (plain, head):
        for found in _SENTENCE.finditer(text):
            said = _OPENING.sub("", _GREETING.sub("", " ".join(found[0].split()))).strip(" ,;:-–—\"'")
            if any(character.isalnum() for character in said):
                return _shortened(said[0].upper() + said[1:])
    words = " ".join(question.split()).strip()
    return _shortened(words) if any(character.isalnum() for character in words) else None


def _shortened(title: str) -> str:
    if len(title) <= LENGTH:
        return title.rstrip(".")
    cut = title[: LENGTH - 1]
    at_word = cut.rfind(" ")
    # Text without spaces, such as Chinese, is cut between any two characters.
    return (cut[:at_word] if at_word > LENGTH // 2 else cut).rstrip(" ,;:-–—") + "…"
