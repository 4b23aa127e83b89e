"""Ages at which children in the United States have acquired the consonants of English.

Crowe & McLeod 2020, "Children's English consonant acquisition in the United States: a review", American Journal of
Speech-Language Pathology 29(4): 2155-2169, doi 10.1044/2020_AJSLP-19-00168: 15 studies, 18,907 children, mean age at
which 90 % of them say the consonant right, mostly in single words. There are no norms for vowels, for clusters, for
other Englishes or for children who grow up with two languages.
"""

from typing import Final

SOURCE: Final = "Crowe & McLeod 2020, mean age of the 90 % criterion, children in the United States, single words"
ACQUIRED_AT_YEARS: Final[dict[str, int]] = {
    phone: years
    for years, phones in {
        2: "b n m p h w d",
        3: "ɡ k f t ŋ j",
        4: "v d͡ʒ s t͡ʃ l ʃ z",
        5: "ɹ ð ʒ",
        6: "θ",
    }.items()
    for phone in phones.split()
}
"""Completed years of the age at which a consonant is acquired: 4 stands for 4;0 to 4;11."""
NORMED_FROM_YEARS: Final = 2.0
NORMED_TO_YEARS: Final = 18.0


def has_norms(age_years: float) -> bool:
    """Whether the norms say anything of this age: the studies begin at 2;0, and adults have acquired all."""
    return NORMED_FROM_YEARS <= age_years < NORMED_TO_YEARS


def age_expected(phone: str, age_years: float) -> bool | None:
    """Whether difficulty with a consonant is still usual at this age: the year of its acquisition has not passed.

    None where there is no norm: for a vowel, an adult, a child under two.
    """
    acquired = ACQUIRED_AT_YEARS.get(phone)
    return None if acquired is None or not has_norms(age_years) else age_years < acquired + 1
