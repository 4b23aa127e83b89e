"""What the findings of articulation say of a slip."""

import pytest

from neuroedge.kit.articulation_findings import confidence_of, explained, kind_of, processes_seen
from neuroedge.kit.phonology import Slip

FRONTING = Slip(type="substitution", word=("k", "æ", "t"), place=0, heard="t")
TH_AS_S = Slip(type="substitution", word=("θ", "ɪ", "ŋ"), place=0, heard="s")


def test_a_named_dialect_comes_before_weak_speech_and_weak_speech_before_an_error() -> None:
    """No slip is correct."""
    assert kind_of(None, dialects=[], weak=True) == ("correct", None)
    assert kind_of(TH_AS_S, dialects=["h_dropping", "th_alveolar"], weak=True) == ("dialect", "th_alveolar")
    assert kind_of(TH_AS_S, dialects=[], weak=True) == ("connected_speech", None)
    assert kind_of(TH_AS_S, dialects=["h_dropping"], weak=False) == ("substitution", None)


@pytest.mark.parametrize(
    ("p_error", "distortion", "sure", "told"),
    [
        (0.95, False, True, "high"),
        (0.02, False, True, "high"),
        (0.8, False, True, "medium"),
        (0.5, False, True, "low"),
        (0.99, True, True, "low"),
        (0.99, False, False, "low"),
    ],
)
def test_confidence_is_low_for_a_distortion_and_an_unsure_recording(
    p_error: float, distortion: bool, sure: bool, told: str
) -> None:
    """And high only where the probability is near 0 or 1."""
    assert confidence_of(p_error, distortion=distortion, sure=sure) == told


def test_only_an_error_is_explained() -> None:
    """A dialect's pattern has no age and no process."""
    error = explained("k", FRONTING, error=True, age_years=9.0)
    assert (error["heard"], error["age_expected"], error["processes"]) == ("t", False, ["velar fronting"])
    assert error["features_changed"]
    none = explained("k", FRONTING, error=False, age_years=9.0)
    assert (none["heard"], none["age_expected"], none["processes"], none["features_changed"]) == ("t", None, [], [])
    assert explained("k", None, error=False, age_years=None)["heard"] == "k"


def test_processes_are_counted_with_examples() -> None:
    """The most frequent first."""
    seen = processes_seen(["cat", "thing"], [(1, TH_AS_S), (0, FRONTING), (0, FRONTING)])
    assert (seen[0].name, seen[0].count) == ("velar fronting", 2)
    assert seen[0].examples == ["k→t in cat", "k→t in cat"]
