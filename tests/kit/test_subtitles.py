"""Subtitles: readable cues, and files that players and scorers read back as they were meant."""

import re
from itertools import pairwise

import pytest

from neuroedge.kit.subtitles import (
    CHARS_PER_S,
    MAX_CUE_S,
    Cue,
    Spoken,
    clock,
    cues,
    plain,
    rttm,
    srt,
    turns_of,
    vtt,
    whole,
)

LONG = (
    "We looked at the house on Monday, and it was larger than we thought. The garden needs a lot of work, but the roof"
    " is new and the cellar is dry. I think that we should make an offer before the end of the week."
)


def spoken(text: str, *, start_s: float = 0.0, word_s: float = 0.3, speaker: str | None = "S1") -> Spoken:
    """A text said evenly, a word each `word_s`."""
    words = [(w, start_s + i * word_s, start_s + (i + 0.9) * word_s) for i, w in enumerate(text.split())]
    return Spoken(text=text, start_s=start_s, end_s=words[-1][2], speaker=speaker, words=words)


def test_long_speech_is_cut_into_cues_of_two_readable_lines() -> None:
    """No line over 42 characters, no cue over 7 s, no word lost or changed, cuts between words."""
    found = cues([spoken(LONG)])
    assert len(found) > 2
    for cue in found:
        assert 1 <= len(cue.lines) <= 2
        assert all(len(line) <= 42 for line in cue.lines)
        assert cue.end_s - cue.start_s <= MAX_CUE_S
    assert " ".join(line for cue in found for line in cue.lines) == LONG


def test_cuts_are_made_at_the_end_of_a_sentence_where_there_is_one() -> None:
    """The first sentence fills a cue nearly: the second one does not begin in it."""
    found = cues([spoken(LONG)])
    assert found[0].lines[-1].endswith("thought.")


def test_lines_of_a_cue_are_about_as_long() -> None:
    """Not one full line and a single word below it."""
    cue = cues([spoken("This sentence is just a little too long for one line.")])[0]
    assert abs(len(cue.lines[0]) - len(cue.lines[1])) < 12


def test_cues_keep_the_times_of_their_words() -> None:
    """Each begins with its first word; they follow each other without overlap."""
    part = spoken(LONG, start_s=10.0)
    found = cues([part])
    said = iter(part.words)
    for cue in found:
        of_cue = [next(said) for _ in " ".join(cue.lines).split()]
        assert cue.start_s == of_cue[0][1]
        assert cue.end_s >= of_cue[-1][2]
    for cue, after in pairwise(found):
        assert cue.end_s <= after.start_s + 1e-9
    assert found[0].start_s == 10.0


def test_a_short_cue_is_held_until_it_can_be_read_but_not_into_the_next() -> None:
    """'Yes.' takes 0.2 s to say and 5/6 s to see; fast speech is held at 20 characters a second where there is room."""
    alone = cues([spoken("Yes.", word_s=0.2)])[0]
    assert alone.end_s - alone.start_s == pytest.approx(5 / 6)
    fast = cues([spoken("This was said very fast indeed", word_s=0.1)])[0]
    assert fast.end_s - fast.start_s >= 30 / CHARS_PER_S - 1e-6
    first, second = cues([spoken("Yes.", word_s=0.2), spoken("No.", start_s=0.4)])
    assert first.end_s < second.start_s


def test_no_cue_is_without_length() -> None:
    """A word that the recogniser gave no time, right before another speaker's."""
    words = [("Hm.", 1.0, 1.0)]
    parts = [Spoken(text="Hm.", start_s=1, end_s=1, speaker="A", words=words), spoken("Yes?", start_s=1.0, speaker="B")]
    assert all(cue.end_s > cue.start_s for cue in cues(parts))


def test_a_pause_ends_a_cue() -> None:
    """More than a second between two words."""
    words = [("One", 0.0, 0.4), ("two", 2.0, 2.4)]
    found = cues([Spoken(text="One two", start_s=0, end_s=2.4, words=words)])
    assert [cue.lines for cue in found] == [("One",), ("two",)]


def test_text_without_word_times_is_spread_over_its_stretch() -> None:
    """In order, inside the stretch."""
    found = cues([Spoken(text=LONG, start_s=5.0, end_s=25.0)])
    assert found[0].start_s == 5.0
    assert found[-1].end_s <= 25.0 + 1e-6
    assert " ".join(line for cue in found for line in cue.lines) == LONG


def test_scripts_without_spaces_keep_their_text() -> None:
    """Words are found in the text as it is written; none gets a space that is not there."""
    words = [("今日", 0.0, 0.4), ("は", 0.4, 0.5), ("いい", 0.5, 0.8), ("天気。", 0.8, 1.2)]
    found = cues([Spoken(text="今日はいい天気。", start_s=0, end_s=1.2, words=words)])
    assert found[0].lines == ("今日はいい天気。",)


def test_names_stand_where_the_speaker_changes_and_count_as_text() -> None:
    """SubRip has no field for them."""
    parts = [spoken("Hello."), spoken("How are you?", start_s=1.5), spoken("Fine.", start_s=4.0, speaker="Ann Lee")]
    found = cues(parts, named=True)
    assert [cue.lines[0] for cue in found] == ["S1: Hello.", "How are you?", "Ann Lee: Fine."]
    assert all(len(line) <= 42 for cue in cues([spoken(LONG)], named=True) for line in cue.lines)


def test_subrip_is_numbered_and_without_what_players_take_for_code() -> None:
    """Arrows and tags in words do not break the file."""
    text = srt([Cue(start_s=3661.5, end_s=3662.25, lines=("a --> b", "<b>bold</b> {\\an8} 1 < 2"))])
    assert text == "1\n01:01:01,500 --> 01:01:02,250\na -> b\n< b>bold< /b> { \\an8} 1 < 2\n\n"


def test_webvtt_has_voice_tags_and_escapes() -> None:
    """Names are escaped too, as they are given by users."""
    text = vtt([Cue(start_s=0, end_s=1, lines=("R&D <i>", "x --> y"), speaker="A & <B>")])
    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")
    assert "<v A &amp; &lt;B&gt;>R&amp;D &lt;i&gt;\nx --&gt; y\n\n" in text


def test_rttm_is_read_back_by_columns() -> None:
    """Ten columns whatever the names hold; nobody's speech is left out."""
    parts = [spoken("a b", speaker="Ann Lee"), spoken("c", start_s=0.8, speaker="Ann Lee"), spoken("d", speaker=None)]
    rows = [line.split() for line in rttm(turns_of(parts), file_id="my file").splitlines()]
    assert rows == [["SPEAKER", "my_file", "1", "0.000", "1.070", "<NA>", "<NA>", "Ann_Lee", "<NA>", "<NA>"]]


def test_plain_text_has_a_paragraph_for_each_turn() -> None:
    """With its time and speaker."""
    parts = [spoken("Hello."), spoken("Again.", start_s=2), spoken("Yes.", start_s=65, speaker=None)]
    assert plain(parts) == "[00:00:00] S1: Hello. Again.\n[00:01:05] Yes.\n"


def test_a_line_that_says_it_is_an_end_of_line_does_not_make_one() -> None:
    """Line ends inside words and names are blanks."""
    part = Spoken(text="one\n\ntwo", start_s=0, end_s=1, speaker="x\n\ny")
    assert re.findall(r"\n\n.", srt(cues([part], named=True))) == []
    assert vtt(whole([part])).count("\n\n") == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00:00.000"), (-1, "00:00:00.000"), (360_000.9996, "100:00:01.000")]
)
def test_clock(seconds: float, text: str) -> None:
    """Rounded to milliseconds, never negative, hours past 99."""
    assert clock(seconds, ".") == text


def test_nothing_said_is_an_empty_file() -> None:
    """Still a valid one."""
    assert srt(cues([])) == ""
    assert vtt(cues([])) == "WEBVTT\n\n"
    assert cues([Spoken(text="  ", start_s=0, end_s=1)]) == []
