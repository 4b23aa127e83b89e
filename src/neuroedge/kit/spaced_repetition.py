"""How well something is remembered, and when to see it again: FSRS-6 over the history of its reviews.

FSRS (Ye, Su & Cao 2022, KDD), version 6 with its published default parameters, by the library `fsrs` (MIT).
Time between reviews counts in calendar days (UTC), as in the data FSRS was fitted on and in ts-fsrs; the library alone
would count full 24 hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Rating = Literal["again", "hard", "good", "easy"]
RATINGS: Final[tuple[Rating, ...]] = ("again", "hard", "good", "easy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """State of a memory: days until recall falls to 0.9, difficulty 1 to 10, when to review, chance of recall now."""

    stability_days: float
    difficulty: float
    due_at: datetime
    retrievability: float


def recall(
    reviews: Sequence[tuple[datetime, Rating]], *, now: datetime, desired_retention: float = 0.9
) -> Recall | None:
    """What the reviews (aware times, any order) leave behind at `now`; None without reviews.

    `due_at` is when the chance of recall falls to `desired_retention`, or the next step of a first day's learning.
    """
    from fsrs import Card, Scheduler
    from fsrs import Rating as Grade

    if not reviews:
        return None
    scheduler = Scheduler(desired_retention=desired_retention, enable_fuzzing=False)
    card = Card(card_id=0, due=now)
    for at, rating in sorted(reviews, key=lambda r: r[0]):
        card, _ = scheduler.review_card(card, Grade(RATINGS.index(rating) + 1), at.astimezone(UTC))
        # From midnight on, the library's full days are calendar days.
        card.last_review = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if card.stability is None or card.difficulty is None:
        raise AssertionError("a reviewed card has a stability")
    return Recall(
        stability_days=card.stability,
        difficulty=card.difficulty,
        due_at=card.due,
        retrievability=float(scheduler.get_card_retrievability(card, now.astimezone(UTC))),
    )
