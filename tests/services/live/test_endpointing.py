"""Utterances are found by the probability of speech of each 32 ms."""

import pytest

from neuroedge.services.live.endpointing import FRAME_S, Endpointer, Mark

SPEECH, SILENCE = [0.9], [0.02]


def endpointer(*, silence_s: float = 0.5, max_s: float = 18.0) -> Endpointer:
    """With Silero's usual threshold."""
    return Endpointer(threshold=0.5, silence_s=silence_s, max_s=max_s)


def test_an_utterance_begins_with_its_first_frame_and_ends_with_its_last() -> None:
    """The marks lie at the speech, not where it was noticed; silence before and after is not in it."""
    found = list(endpointer().push(SILENCE * 10 + SPEECH * 40 + SILENCE * 20))
    assert found == [Mark(10, speaking=True), Mark(50, speaking=False)]


def test_it_makes_no_difference_how_the_frames_arrive() -> None:
    """One by one or all together."""
    frames = SILENCE * 5 + SPEECH * 30 + SILENCE * 17 + SPEECH * 9 + SILENCE * 30
    one_by_one = endpointer()
    assert [mark for p in frames for mark in one_by_one.push([p])] == list(endpointer().push(frames))


def test_a_click_is_no_speech_and_a_breath_no_end() -> None:
    """Two loud frames begin nothing; a pause shorter than asked for ends nothing."""
    assert list(endpointer().push(SPEECH * 2 + SILENCE * 30)) == []
    pause = SILENCE * round(0.4 / FRAME_S)
    assert len(list(endpointer().push(SPEECH * 20 + pause + SPEECH * 20))) == 1
    assert len(list(endpointer(silence_s=0.3).push(SPEECH * 20 + pause + SPEECH * 20))) == 3


def test_a_short_word_begins_with_one_sure_frame() -> None:
    """As the first hello of the sample call is judged."""
    assert list(endpointer().push([0.37, 0.55, 0.5, 0.45, 0.36])) == [Mark(1, speaking=True)]


def test_speech_goes_on_at_a_little_less_than_began_it() -> None:
    """0.4 begins nothing, and ends nothing."""
    assert list(endpointer().push([0.4] * 50)) == []
    assert list(endpointer().push(SPEECH * 5 + [0.4] * 50)) == [Mark(0, speaking=True)]


def test_who_never_pauses_is_cut_where_it_sounds_least_like_speech() -> None:
    """In the second half; what comes after goes on as the next utterance, which is cut in its turn."""
    limit = round(10.0 / FRAME_S)
    frames = SPEECH * limit * 2
    frames[200] = 0.6
    found = list(endpointer(max_s=10.0).push(frames))
    assert found[:2] == [Mark(0, speaking=True), Mark(200, speaking=False, cut=True)]
    assert found[2].cut
    assert 200 + limit // 2 <= found[2].frame <= 200 + limit


def test_a_flush_ends_what_goes_on() -> None:
    """At its last speech; a second one has nothing to end."""
    heard = endpointer()
    list(heard.push(SPEECH * 20 + SILENCE * 5))
    assert heard.quiet_s == pytest.approx(5 * FRAME_S)
    assert heard.flush() == Mark(20, speaking=False)
    assert heard.flush() is None
    assert list(heard.push(SPEECH * 5)) == [Mark(25, speaking=True)]


def test_what_is_cut_off_from_outside_is_no_part_of_the_rest() -> None:
    """The longest length counts from there."""
    limit = round(10.0 / FRAME_S)
    heard = endpointer(max_s=10.0)
    assert list(heard.push(SPEECH * 200)) == [Mark(0, speaking=True)]
    heard.cut(150)
    assert list(heard.push(SPEECH * (limit - 51))) == []
    (mark,) = heard.push(SPEECH)
    assert mark.cut


def test_who_speaks_for_long_is_parted_at_a_breath() -> None:
    """A pause too short for an end is one once the speech is long; a still shorter one is none ever."""
    breath, gap = SILENCE * round(0.35 / FRAME_S), SILENCE * round(0.2 / FRAME_S)
    heard = Endpointer(threshold=0.5, silence_s=0.5, max_s=60.0, long_s=8.0)
    early, late = SPEECH * round(4 / FRAME_S), SPEECH * round(5 / FRAME_S)
    found = list(heard.push([*early, *breath, *late, *gap, *early, *breath, *early]))
    end = len([*early, *breath, *late, *gap, *early])
    assert found == [Mark(0, speaking=True), Mark(end, speaking=False), Mark(end + len(breath), speaking=True)]


def test_a_breath_is_as_long_as_the_silence_asked_for_makes_it() -> None:
    """Who asks for 2 s is not parted at 0.5 s."""
    heard = Endpointer(threshold=0.5, silence_s=2.0, max_s=60.0, long_s=8.0)
    long, short, breath = (SPEECH * 300, SILENCE * round(0.8 / FRAME_S), SILENCE * round(1.4 / FRAME_S))
    assert [mark.speaking for mark in heard.push([*long, *short, *long])] == [True]
    assert [mark.speaking for mark in heard.push([*breath, *long])] == [False, True]


def test_a_shorter_silence_than_a_breath_stays_what_was_asked_for() -> None:
    """Who asks for 0.2 s gets it, in long speech too."""
    heard = Endpointer(threshold=0.5, silence_s=0.2, max_s=60.0, long_s=8.0)
    long, pause = SPEECH * round(9 / FRAME_S), SILENCE * round(0.25 / FRAME_S)
    assert [mark.speaking for mark in heard.push([*long, *pause, *long])] == [True, False, True]
