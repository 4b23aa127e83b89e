"""Plain words for less common ones, and their forms.

The pairs follow the lists of the US government's plain-language guidelines (plainlanguage.gov, public domain) with
words of older books added; each keeps the grammar of its sentence (same part of speech, same complements).
"""

import re
from typing import Final

VERBS: Final = dict(
    pair.split(":")
    for pair in [
        "utilize:use",
        "utilise:use",
        "commence:start",
        "terminate:end",
        "purchase:buy",
        "assist:help",
        "attempt:try",
        "require:need",
        "obtain:get",
        "demonstrate:show",
        "indicate:show",
        "reside:live",
        "depart:leave",
        "endeavour:try",
        "endeavor:try",
        "modify:change",
        "select:choose",
        "retain:keep",
        "construct:build",
        "possess:have",
        "perceive:see",
        "conceal:hide",
        "summon:call",
        "behold:see",
        "converse:talk",
        "ascend:climb",
        "perish:die",
        "slay:kill",
        "procure:get",
        "acquire:get",
        "reply:answer",
        "inform:tell",
        "comprehend:understand",
        "recollect:remember",
        "dwell:live",
        "detest:hate",
        "desire:want",
        "observe:see",
        "discover:find",
        "bestow:give",
        "accumulate:gather",
        "manufacture:make",
        "cease:stop",
        "seize:take",
        "proceed:go",
        "regard:see",
        "employ:use",
        "establish:set",
        "consume:use",
        "assemble:gather",
        "imprison:jail",
        "illuminate:light",
    ]
)
NOUNS: Final = dict(
    pair.split(":")
    for pair in [
        "residence:home",
        "assistance:help",
        "quantity:amount",
        "individual:person",
        "vicinity:area",
        "felicity:happiness",
        "countenance:face",
        "abode:home",
        "beverage:drink",
        "physician:doctor",
        "attorney:lawyer",
        "infant:baby",
        "multitude:crowd",
        "foe:enemy",
        "maiden:girl",
        "lad:boy",
        "error:mistake",
        "conclusion:end",
        "commencement:start",
        "dwelling:home",
        "apparel:clothing",
        "sentiment:feeling",
        "disposition:nature",
        "affection:love",
        "endeavour:effort",
        "endeavor:effort",
        "residue:rest",
        "objective:goal",
        "opportunity:chance",
        "location:place",
        "remuneration:pay",
        "modification:change",
        "requirement:need",
    ]
)
OTHERS: Final = dict(
    pair.split(":")
    for pair in [
        "numerous:many",
        "additional:extra",
        "entire:whole",
        "initial:first",
        "primary:main",
        "principal:main",
        "rapid:fast",
        "difficult:hard",
        "wealthy:rich",
        "immense:huge",
        "enormous:huge",
        "weary:tired",
        "courageous:brave",
        "peculiar:strange",
        "feeble:weak",
        "fortunate:lucky",
        "erroneous:wrong",
        "frequently:often",
        "rapidly:quickly",
        "subsequently:later",
        "consequently:so",
        "furthermore:also",
        "moreover:also",
        "therefore:so",
        "approximately:about",
        "primarily:mainly",
        "merely:only",
        "whilst:while",
        "amongst:among",
        "concerning:about",
        "regarding:about",
        "thus:so",
        "hence:so",
        "exceedingly:very",
        "extremely:very",
        "previously:before",
        "sufficient:enough",
        "agreeable:pleasant",
        "melancholy:sad",
        "amiable:friendly",
        "tranquil:calm",
        "intricate:complex",
        "occasionally:sometimes",
        "commonly:often",
        "invariably:always",
        "solely:only",
        "beneficial:helpful",
    ]
)
"""Adjectives, adverbs and prepositions, which have no forms here."""
PHRASES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(rf"\b{long}\b", re.IGNORECASE), short)
    for long, short in (
        ("in order to", "to"),
        ("due to the fact that", "because"),
        ("owing to the fact that", "because"),
        ("in spite of the fact that", "although"),
        ("with regard to", "about"),
        ("with respect to", "about"),
        ("with reference to", "about"),
        ("in the event that", "if"),
        ("at this point in time", "now"),
        ("at the present time", "now"),
        ("prior to", "before"),
        ("subsequent to", "after"),
        ("a large number of", "many"),
        ("a great number of", "many"),
        ("a great many", "many"),
        ("a sufficient number of", "enough"),
        ("the majority of", "most"),
        ("for the purpose of", "for"),
        ("in the vicinity of", "near"),
        ("in close proximity to", "near"),
        ("in addition to", "besides"),
        ("by means of", "by"),
        ("with the exception of", "except"),
        ("on the part of", "by"),
        ("notwithstanding the fact that", "although"),
    )
)
_IRREGULAR: Final = {
    "buy": ("bought", "bought"),
    "get": ("got", "got"),
    "show": ("showed", "shown"),
    "leave": ("left", "left"),
    "choose": ("chose", "chosen"),
    "keep": ("kept", "kept"),
    "build": ("built", "built"),
    "have": ("had", "had"),
    "see": ("saw", "seen"),
    "hide": ("hid", "hidden"),
    "tell": ("told", "told"),
    "understand": ("understood", "understood"),
    "find": ("found", "found"),
    "give": ("gave", "given"),
    "make": ("made", "made"),
    "take": ("took", "taken"),
    "go": ("went", "gone"),
    "set": ("set", "set"),
    "light": ("lit", "lit"),
}
_DOUBLED: Final = frozenset({"get", "stop", "set"})
_PLURALS: Final = {
    "person": "people",
    "baby": "babies",
    "enemy": "enemies",
    "clothing": "clothing",
    "help": "help",
    "pay": "pay",
}


def plain(lemma: str, pos: str, tag: str) -> str | None:
    """The plain word for a lemma in the form of a Penn tag; None where there is none."""
    lemma = lemma.lower()
    if pos == "VERB" and lemma in VERBS:
        if VERBS[lemma] == "get" and tag == "VBN":
            return None  # "was obtained" is better English than "was got"
        return verb_form(VERBS[lemma], tag)
    if pos == "NOUN" and lemma in NOUNS:
        word = NOUNS[lemma]
        return _PLURALS.get(word, word + "s") if tag == "NNS" else word
    if pos in ("ADJ", "ADV", "ADP", "SCONJ") and tag in ("JJ", "RB", "IN") and lemma in OTHERS:
        return OTHERS[lemma]
    return None


def verb_form(verb: str, tag: str) -> str:
    """A verb in the form of its Penn tag: VBZ, VBG, VBD, VBN; the base for any other."""
    if tag == "VBZ":
        if verb == "have":
            return "has"
        if verb.endswith(("s", "sh", "ch", "o", "x")):
            return verb + "es"
        return verb[:-1] + "ies" if verb[-1] == "y" and verb[-2] not in "aeiou" else verb + "s"
    if tag == "VBG":
        if verb in ("die", "see"):
            return {"die": "dying", "see": "seeing"}[verb]
        return (verb + verb[-1] if verb in _DOUBLED else verb.removesuffix("e")) + "ing"
    if tag in ("VBD", "VBN"):
        if verb in _IRREGULAR:
            return _IRREGULAR[verb][tag == "VBN"]
        if verb in _DOUBLED:
            return verb + verb[-1] + "ed"
        if verb[-1] == "y" and verb[-2] not in "aeiou":
            return verb[:-1] + "ied"
        return verb.removesuffix("e") + "ed"
    return verb


def article(word: str) -> str:
    """a or an before a plain word of these lists."""
    return "an" if word[0].lower() in "aeio" or word.startswith("un") else "a"


def known_more(before: str, after: str) -> bool:
    """Whether a word is met more often than another (Zipf frequency of `wordfreq`, Speer 2022)."""
    from wordfreq import zipf_frequency

    return bool(zipf_frequency(after, "en") > zipf_frequency(before, "en"))
