"""Names speakers give themselves."""

from neuroedge.kit.introductions import introductions


def test_two_speakers_of_a_call_introduce_themselves() -> None:
    """By "this is" and by "I'm"."""
    turns = [
        ("S1", "This is Diane in New Jersey."),
        ("S2", "And I'm Sheila in Texas, originally from Chicago."),
        ("S1", "Oh, I'm originally from Chicago also."),
    ]
    assert introductions(turns) == {"S1": "Diane", "S2": "Sheila"}


def test_a_name_called_out_to_another_is_not_the_speakers() -> None:
    """Only what speakers say of themselves counts."""
    assert introductions([("S1", "Good morning, Diane. Thank you, Mrs. Okafor.")]) == {}


def test_a_certain_introduction_beats_what_the_speaker_is() -> None:
    """ "I'm German" does not rename Anna."""
    assert introductions([("S1", "I'm German, by the way. My name is Anna.")]) == {"S1": "Anna"}


def test_speaking_after_the_name_introduces_too() -> None:
    """As people answer a telephone."""
    assert introductions([("S1", "Riverside practice, Anna speaking.")]) == {"S1": "Anna"}


def test_contradicting_or_shared_names_leave_speakers_unnamed() -> None:
    """Rather the label than a wrong name."""
    assert introductions([("S1", "This is Anna."), ("S1", "This is Bert.")]) == {}
    assert introductions([("S1", "This is Anna."), ("S2", "This is Anna.")]) == {}
    assert introductions([]) == {}
