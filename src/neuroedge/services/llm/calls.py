"""What the ledger keeps of each call to a language model."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from neuroedge.services.llm.offers import Offer

Outcome = Literal["ok", "cancelled", "failed", "lost"]
"""cancelled: the caller left; failed: the provider did; lost: the process died and nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An attempt at one provider. Each attempt is a call of its own: providers count those that fail as well."""

    id: UUID
    """Idempotency key: rows of the same call are written once."""
    org_id: UUID
    user_id: UUID
    request_id: str
    offer: Offer
    query_type: str | None
    prompt_tokens: int
    """Estimate, for what is never told."""
    max_tokens: int = 0
    """Most the answer may take: a budget sets its price aside until the call has ended."""
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """How it ended."""

    outcome: Outcome
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    estimated: bool = False
    """Whether the tokens were counted here because the provider did not tell."""
    seconds: float
    first_token_s: float | None = None
    error: str | None = None
    """Code of the error, never content."""
