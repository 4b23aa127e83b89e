"""Ages of acquisition."""

import pytest

from neuroedge.kit.age_norms import ACQUIRED_AT_YEARS, age_expected
from neuroedge.kit.phonology import CONSONANTS


def test_every_consonant_of_english_has_its_age() -> None:
    """24 consonants, no more."""
    assert set(ACQUIRED_AT_YEARS) == set(CONSONANTS)


@pytest.mark.parametrize(
    ("phone", "age", "usual"),
    [
        ("θ", 4.0, True),
        ("θ", 6.9, True),
        ("θ", 7.0, False),
        ("s", 4.5, True),
        ("s", 5.0, False),
        ("p", 3.0, False),
        ("æ", 3.0, None),
        ("s", 1.5, None),
        ("s", 30.0, None),
    ],
)
def test_difficulty_is_usual_until_the_year_of_acquisition_is_over(phone: str, age: float, usual: bool | None) -> None:
    """No norm for vowels, adults and children under two."""
    assert age_expected(phone, age) is usual
