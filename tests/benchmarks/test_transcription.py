"""Word errors of an answer without times, given to the utterances of its reference."""

from pathlib import Path

from benchmarks.peer_whisper import word_errors
from benchmarks.transcription import errors_by_utterance, utterances, word_error_rate

SAID = ["Hello?", "Oh, hello.", "I didn't know you were there.", "Neither did I."]


def test_each_error_is_counted_where_it_was_made() -> None:
    """A word left out of the second, another word in the third, one too many in the last."""
    heard = "hello oh I did not know you are there neither did I too"
    assert errors_by_utterance(SAID, heard) == [(0, 1), (1, 2), (1, 7), (1, 3)]


def test_together_they_are_the_errors_of_the_whole() -> None:
    """Also where the answer has little to do with what was said."""
    for heard in ("well hello there I know what you were", "Neither hello", "one two three four five six seven"):
        counts = errors_by_utterance(SAID, heard)
        assert (sum(wrong for wrong, _ in counts), sum(words for _, words in counts)) == word_errors(
            " ".join(SAID), heard
        )


def test_an_empty_answer_misses_every_word() -> None:
    """The rate is 1, and so is every draw's."""
    assert errors_by_utterance(SAID, "") == [(1, 1), (2, 2), (7, 7), (3, 3)]
    found = word_error_rate(SAID, "")
    assert found.median == 1
    assert "95 % 1.000 to 1.000 by bootstrap over n = 4 utterances" in found.note


def test_utterances_of_an_stm_file(tmp_path: Path) -> None:
    """Name, channel, speaker and times are left out, and so are empty lines."""
    (tmp_path / "a.stm").write_text("a 1 Ann 0.1 0.5 Oh, hello.\n\na 1 Bob 0.6 1.5 Neither did I.\n")
    assert utterances(tmp_path / "a.stm") == ["Oh, hello.", "Neither did I."]
