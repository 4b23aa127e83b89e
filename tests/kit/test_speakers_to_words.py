"""Words get speakers and become segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroedge.kit.diarization import Turn
from neuroedge.kit.speakers_to_words import TimedWord, joined, one_text, segments_by_speaker, with_spaces


def _turn(speaker: str, start_s: float, end_s: float, confidence: float = 0.9) -> Turn:
    return Turn(speaker=speaker, start_s=start_s, end_s=end_s, confidence=confidence)


def _words(text: str, *, start_s: float = 0.0, step_s: float = 0.5, lead: str = " ") -> list[TimedWord]:
    times = [start_s + i * step_s for i in range(len(text.split()))]
    return [
        TimedWord(w=lead + w, start_s=t, end_s=t + step_s * 0.9, p=0.8)
        for w, t in zip(text.split(), times, strict=True)
    ]


def test_a_change_of_speaker_starts_a_segment() -> None:
    """Each speaker's words, joined, with times and mean probability."""
    words = _words("hello there who is it")
    first, second = segments_by_speaker(words, [_turn("S1", 0, 1), _turn("S2", 1, 3)])
    assert (first.speaker, first.text, first.start_s, first.end_s) == ("S1", "hello there", 0.0, 0.95)
    assert (second.speaker, second.text) == ("S2", "who is it")
    assert second.confidence == pytest.approx(0.8)


def test_a_word_over_two_turns_goes_to_the_larger_part() -> None:
    """0.2 s in the first turn, 0.3 s in the second."""
    word = TimedWord(w="well", start_s=0.8, end_s=1.3, p=1)
    assert segments_by_speaker([word], [_turn("S1", 0, 1), _turn("S2", 1, 3)])[0].speaker == "S2"


def test_a_word_in_a_gap_goes_to_the_nearest_turn() -> None:
    """Between two turns, and after the last."""
    turns = [_turn("S1", 0, 1), _turn("S2", 3, 4)]
    words = [TimedWord(w="a", start_s=1.1, end_s=1.3, p=1), TimedWord(w="b", start_s=9, end_s=9.1, p=1)]
    assert [segment.speaker for segment in segments_by_speaker(words, turns)] == ["S1", "S2"]


def test_a_weak_lone_word_goes_to_its_surroundings() -> None:
    """A blip of 0.3 s of another speaker inside a run does not cut the sentence."""
    turns = [_turn("S1", 0, 1.0), _turn("S2", 1.0, 1.3), _turn("S1", 1.3, 3)]
    (only,) = segments_by_speaker(_words("we went to the sea"), turns)
    assert (only.speaker, only.text) == ("S1", "we went to the sea")


def test_a_firm_lone_word_keeps_its_speaker() -> None:
    """A sure turn of its own, and a doubtful one set apart by pauses, both stay."""
    firm = [_turn("S1", 0, 1.0), _turn("S2", 1.0, 1.5), _turn("S1", 1.5, 3)]
    assert [s.speaker for s in segments_by_speaker(_words("we went yes the sea"), firm)] == ["S1", "S2", "S1"]
    apart = [*_words("so then"), TimedWord(w=" yes", start_s=1.6, end_s=1.8, p=1), *_words("I left", start_s=2.5)]
    doubtful = [_turn("S1", 0, 1.2), _turn("S2", 1.5, 1.9, 0.5), _turn("S1", 2.4, 4)]
    assert [s.speaker for s in segments_by_speaker(apart, doubtful)] == ["S1", "S2", "S1"]


def test_a_pause_over_a_second_starts_a_segment() -> None:
    """The same speaker goes on after 1.2 s; after 0.9 s it is one segment."""
    for pause_s, expected in ((1.2, 2), (0.9, 1)):
        words = [*_words("one two"), *_words("three", start_s=0.95 + pause_s)]
        assert len(segments_by_speaker(words, [_turn("S1", 0, 9)])) == expected


@pytest.mark.parametrize("step_s", [0.2, 0.5, 4.0])
def test_speech_without_sentence_ends_or_pauses_is_cut_between_words(step_s: float) -> None:
    """Dictation without full stops, fast and slow, stays within 60 s and 1000 characters a segment."""
    words = _words("dictated without any stop " * 300, step_s=step_s)
    segments = segments_by_speaker(words, [_turn("S1", 0, 9_999)])
    assert [word for segment in segments for word in segment.words] == words
    assert all(s.end_s - s.start_s <= 60 and len(s.text) <= 1000 for s in segments)
    assert all(s.end_s - s.start_s > 25 or len(s.text) > 450 for s in segments[:-1])


def test_a_forced_cut_is_made_at_a_long_gap() -> None:
    """Breath is taken after 45 s, long before the limit and too short for a pause."""
    words = [*_words("on " * 90), *_words("and " * 90, start_s=45.6)]
    first, second, *_ = segments_by_speaker(words, [_turn("S1", 0, 999)])
    assert set(first.text.split()) == {"on"}
    assert second.start_s == 45.6


def test_one_word_over_the_limits_stays_whole() -> None:
    """A word of two minutes and one of 2000 characters are segments of their own; neither stops the cutting."""
    slow = TimedWord(w=" well", start_s=0.0, end_s=120.0, p=1)
    long = TimedWord(w=" " + "a" * 2000, start_s=120.5, end_s=121, p=1)
    segments = segments_by_speaker([slow, long, *_words("so it is", start_s=121.5)], [_turn("S1", 0, 999)])
    assert [len(s.words) for s in segments] == [1, 1, 3]


def test_words_without_length_make_a_segment_that_does_not_end_before_it_starts() -> None:
    """Recognisers give words of no length, rarely ones that end before they start."""
    nothing = TimedWord(w="oh", start_s=2.0, end_s=2.0, p=1)
    backwards = TimedWord(w="no", start_s=9.0, end_s=8.9, p=1)
    first, second = segments_by_speaker([nothing, backwards], [_turn("S1", 0, 3)])
    assert (first.speaker, first.start_s, first.end_s) == ("S1", 2.0, 2.0)
    assert (second.start_s, second.end_s) == (9.0, 9.0)


def test_a_long_monologue_is_cut_at_sentence_ends_only() -> None:
    """Sentence ends before 3 s do not cut; the first one after does, quotation marks or not."""
    text = "a. " * 2 + "b " * 5 + 'c." d e'
    first, second = segments_by_speaker(_words(text), [_turn("S1", 0, 99)])
    assert first.text.endswith('c."')
    assert second.text == "d e"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([" Hello", ",", " you", "-all"], "Hello, you-all"),
        (["Hello", ",", "you"], "Hello, you"),
        (["今日", "は", "雨", "。"], "今日は雨。"),
        (["привет", "мир"], "привет мир"),
    ],
)
def test_text_is_joined_with_and_without_leading_spaces(words: list[str], text: str) -> None:
    """Whisper's tokens carry their spaces; other recognisers' do not; some scripts write none."""
    timed = [TimedWord(w=w, start_s=i, end_s=i + 0.9, p=1) for i, w in enumerate(words)]
    assert segments_by_speaker(timed, [])[0].text == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["rather", "cold", "-hearted", "and", "don", "'t"], "rather cold-hearted and don't"),
        (["今日", "は", "雨", "。"], "今日は雨。"),
        (["", "to", "you"], "to you"),
        (["said", "otherwise", "than", "the", "text"], "said so than the text"),
        ([], ""),
    ],
)
def test_spaces_are_where_the_text_has_them(words: list[str], text: str) -> None:
    """What no space parts is not parted; what the text does not have at all stands apart."""
    spaced = with_spaces(words, text)
    timed = [TimedWord(w=w, start_s=i, end_s=i + 0.9, p=1) for i, w in enumerate(spaced)]
    assert [w.strip() for w in spaced] == words
    assert joined(timed) == (text if "otherwise" not in words else "said otherwise than the text")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([(["你好", "。"], "你好。"), (["谢谢", "。"], "谢谢。")], "你好。谢谢。"),
        ([(["今日", "は", "雨"], "今日は雨"), (["です"], "です")], "今日は雨です"),
        ([(["ฝน", "ตก"], "ฝนตก"), (["แล้ว"], "แล้ว")], "ฝนตก แล้ว"),
        ([(["비가", "와요."], "비가 와요."), (["네."], "네.")], "비가 와요. 네."),
        ([(["Hello."], "Hello."), (["you", "-all"], "you-all")], "Hello. you-all"),
        ([([], ""), (["Yes."], "Yes.")], "Yes."),
    ],
)
def test_what_follows_is_parted_as_its_script_has_it(said: list[tuple[list[str], str]], text: str) -> None:
    """Between two texts Chinese and Japanese write no space; Thai, which has none between words, does."""
    spaced: list[str] = []
    before = ""
    for words, own in said:
        spaced += with_spaces(words, own, after=before)
        before = own or before
    timed = [TimedWord(w=w, start_s=i, end_s=i + 0.9, p=1) for i, w in enumerate(spaced)]
    (segment,) = segments_by_speaker(timed, [])
    assert segment.text == text


def test_without_words_or_turns() -> None:
    """No words, no segments; no turns, no speaker."""
    assert segments_by_speaker([], [_turn("S1", 0, 1)]) == []
    (segment,) = segments_by_speaker(_words("hello you"), [])
    assert segment.speaker is None


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.floats(-0.1, 90), st.sampled_from(["a", " b.", "c!", "…", "", "d" * 400])),
        max_size=40,
    ),
    st.lists(st.tuples(st.floats(0, 2), st.floats(0.01, 2), st.sampled_from(["S1", "S2", "S3"])), max_size=15),
)
def test_every_word_is_in_one_segment_in_order(
    gaps: list[tuple[float, float, str]], stretches: list[tuple[float, float, str]]
) -> None:
    """Whatever the times, no word is lost, doubled or moved."""
    words, at = [], 0.0
    for gap, length, text in gaps:
        words.append(TimedWord(w=text, start_s=at + gap, end_s=at + gap + length, p=0.5))
        at += gap
    turns, at = [], 0.0
    for gap, length, speaker in stretches:
        turns.append(_turn(speaker, at + gap, at + gap + length))
        at += gap + length
    segments = segments_by_speaker(words, turns)
    assert [word for segment in segments for word in segment.words] == words
    for segment in segments:
        assert segment.words
        assert segment.start_s <= segment.end_s
        assert len(segment.words) == 1 or (segment.end_s - segment.start_s <= 60 and len(segment.text) <= 1000)


def test_texts_are_joined_as_their_language_parts_them() -> None:
    """No space is invented in Chinese and Japanese; empty texts part nothing."""
    assert one_text(["Hello there.", "", "How are you?"]) == "Hello there. How are you?"
    assert one_text(["你好。", "今天天气很好。"]) == "你好。今天天气很好。"
    assert one_text([]) == ""
