"""Where a caller stands with its rate limit, in the headers OpenAI's and Anthropic's clients read."""

from datetime import UTC, datetime, timedelta

from neuroedge.infra.limits import Quota


def openai_headers(quota: Quota | None) -> dict[str, str]:
    """`x-ratelimit-*-requests`; none where nothing is counted."""
    if quota is None:
        return {}
    return {
        "x-ratelimit-limit-requests": str(quota.limit),
        "x-ratelimit-remaining-requests": str(quota.remaining),
        "x-ratelimit-reset-requests": f"{quota.reset_s}s",
    }


def anthropic_headers(quota: Quota | None, request_id: str) -> dict[str, str]:
    """`request-id` and `anthropic-ratelimit-requests-*`; the reset is a time (RFC 3339)."""
    headers = {"request-id": request_id}
    if quota is not None:
        reset = datetime.now(UTC) + timedelta(seconds=quota.reset_s)
        headers |= {
            "anthropic-ratelimit-requests-limit": str(quota.limit),
            "anthropic-ratelimit-requests-remaining": str(quota.remaining),
            "anthropic-ratelimit-requests-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    return headers
