"""Parses written down by hand."""

from neuroedge.kit.parse import NameSpan, ParsedText, Token, TokenSpan


def parsed(words: str, *names: tuple[int, int, str]) -> tuple[str, ParsedText]:
    """A text of one sentence and its parse. A word is text/lemma/pos/tag/dep/head; names are (first, stop, label)."""
    tokens, start = [], 0
    for word in words.split():
        text, lemma, pos, tag, dep, head = word.rsplit("/", 5)
        end = start + len(text)
        tokens.append(Token(text=text, lemma=lemma, pos=pos, tag=tag, dep=dep, head=int(head), start=start, end=end))
        start = end + 1
    spans = tuple(NameSpan(first=first, stop=stop, label=label) for first, stop, label in names)
    sentences = (TokenSpan(first=0, stop=len(tokens)),) if tokens else ()
    return " ".join(token.text for token in tokens), ParsedText(tokens=tuple(tokens), sentences=sentences, names=spans)
