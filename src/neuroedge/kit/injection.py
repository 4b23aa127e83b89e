"""Signs that a text tries to give a language model orders.

This is a short list of patterns, no model: it knows phrasings and tricks that were common when it was written, in
English, and misses what is put in other words. A sign is a flag to store and show; nothing is removed, and nothing is
decided by it. What protects is elsewhere: documents reach a model as quoted data only.

Sources: OWASP Top 10 for LLM Applications 2025, LLM01 (prompt injection); Unicode UTS #39 and UTR #36 for hidden text.
"""

import re

_PATTERNS = {
    # "ignore all previous instructions" and its relatives.
    "instruction_override": re.compile(
        r"\b(?:ignore|disregard|forget|override|bypass)\b"
        r"(?:[\s,*_`\"'-]+(?:all|any|every|the|these|those|your|of|my|our|everything)\b)*"
        r"[\s,*_`\"'-]+(?:previous|prior|above|earlier|preceding|original|initial|system|existing)\b"
        r"[\s,*_`\"'-]+(?:\w+[\s]+){0,2}?(?:instructions?|prompts?|rules?|messages?|directions?|context|guidelines?)\b",
        re.IGNORECASE,
    ),
    # "you are now ...", "from now on you ...": a new role for the reader.
    "role_change": re.compile(
        r"\b(?:you are now|from now on,? you|pretend (?:to be|that you)"
        r"|act as (?:an? )?(?:\w+ )?(?:ai|assistant|model))\b",
        re.IGNORECASE,
    ),
    # "reveal your system prompt".
    "prompt_disclosure": re.compile(
        r"\b(?:reveal|print|repeat|show|output|leak|disclose)\b[^.\n]{0,40}\b(?:system|hidden|secret|initial)\s+"
        r"(?:prompt|instructions?|message)\b",
        re.IGNORECASE,
    ),
    # Chat templates' control tokens, and turns written out at the beginning of a line.
    "role_marker": re.compile(
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>"
        r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
        r"|^[#\s*]*(?:system|assistant)[*\s]*:[*\s]*(?:you|ignore|do not|always|never|your)\b",
        re.IGNORECASE | re.MULTILINE,
    ),
    # Tag characters spell invisible ASCII; runs of zero-width characters hide bits.
    "hidden_unicode": re.compile("[\U000e0020-\U000e007e]{2,}|[\u200b\u2060\u2061-\u2064\ufeff]{4,}"),
    # Overrides that show text in another order than it is read; isolates and marks of right-to-left text are fine.
    "bidirectional_override": re.compile("[\u202d\u202e]"),
}
_FLAG_BASE = "\U0001f3f4"  # the flags of England, Scotland and Wales are spelled in tag characters
_SUBDIVISION_FLAG = re.compile(f"{_FLAG_BASE}[\U000e0020-\U000e007e]+\U000e007f")


def signs(text: str) -> list[str]:
    """Names of the signs found in a text, in the list's order; empty for most texts."""
    plain = _SUBDIVISION_FLAG.sub("", text) if _FLAG_BASE in text else text
    return [name for name, pattern in _PATTERNS.items() if pattern.search(plain)]
