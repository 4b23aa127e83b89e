"""Keywords of one text without a corpus: YAKE (Campos et al. 2020), statistics of the text itself."""

from functools import lru_cache
from typing import Any


def keywords(text: str, *, limit: int = 10, language: str = "en", max_words: int = 2) -> list[str]:
    """At most `limit` keywords or phrases of up to `max_words` words, lower case, each once, the best first.

    Empty for a text without content words.
    """
    if not text.strip():
        return []
    scored = _extractor(language, max_words, limit).extract_keywords(text)
    return list(dict.fromkeys(phrase.lower() for phrase, _ in scored))[:limit]


@lru_cache(maxsize=8)
def _extractor(language: str, max_words: int, limit: int) -> Any:
    # Imported on first use: it brings networkx and takes as long as the rest of the server's start.
    import yake

    # Some spare: phrases that differ only in case fall together afterwards.
    return yake.KeywordExtractor(lan=language, n=max_words, top=2 * limit)
