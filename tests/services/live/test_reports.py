"""What is said of an utterance while it goes on."""

from neuroedge.kit.speakers_to_words import TimedWord
from neuroedge.services.live import reports
from neuroedge.services.live.utterance import Utterance


def _words(*words: str) -> list[TimedWord]:
    return [TimedWord(w=w, start_s=i, end_s=i + 0.5, p=0.9) for i, w in enumerate(words)]


def test_stable_and_unstable_text_together_are_the_text() -> None:
    """Also where they part within a word with a hyphen; words themselves have no spaces around them."""
    utterance = Utterance(number=1, start=0, speech_start=0, spoken_from=0)
    utterance.agreement.stable = _words(" rather", " cold")
    utterance.agreement.unstable = _words("-hearted", " and")
    told = reports.partial(utterance)
    assert told["text"] == "rather cold-hearted and"
    assert (told["stable"], told["unstable"]) == ("rather cold", "-hearted and")
    assert [word["w"] for word in told["words"]] == ["rather", "cold", "-hearted", "and"]
    utterance.agreement.stable = []
    assert reports.partial(utterance)["unstable"] == "-hearted and"
