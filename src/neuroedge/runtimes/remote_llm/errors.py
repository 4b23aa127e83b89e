"""What vendors' SDKs raise, as NeuroEdge's errors. No text that leaves here holds a key.

Both SDKs build their exceptions alike (status_code, response, body), so one reading serves both.
"""

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from neuroedge.contract.errors import (
    ContextTooLong,
    NeuroEdgeError,
    Overloaded,
    ProviderFailed,
    ProviderRefused,
)

MAX_TEXT: Final = 300
"""Characters of a provider's own words that are passed on."""
MAX_RETRY_AFTER_S: Final = 3600
_KINDS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""HTTP status that an error in the middle of a stream would have had."""
_TOO_LONG: Final = re.compile(
    r"context[_ ](length|window|size)|maximum context|prompt is too long|input is too long|too many (input )?tokens",
    re.IGNORECASE,
)
_NETWORK: Final = ("httpx2", "httpcore2", "openai", "anthropic", "anyio", "ssl")
_KEYLIKE: Final = re.compile(r"\b(sk|pk|key|Bearer)[-_ ][\w.*-]{6,}", re.IGNORECASE)


def wrapped(error: Exception, *, provider: str, key: str | None) -> NeuroEdgeError:
    """The error a caller gets for what an SDK raised; to be raised from `cause(error, key)`."""
    body = _body(error)
    status = _status(error, body)
    if status is None:
        return _not_asked(error, provider) or _broken(error, provider)
    said = _said(body, key)
    code = str(body.get("code") or "")
    if status in (401, 402, 403) or code == "insufficient_quota":
        # The provider's words are left out: some repeat the key in them.
        return ProviderFailed(
            f"{provider} does not let this installation in (status {status})",
            hint=f"check the key, the account and its credit at {provider}",
            transient=False,
        )
    if status in (429, 529):
        return Overloaded(f"{provider} has too much to do: {said}", retry_after_s=_retry_after_s(error))
    if code == "context_length_exceeded" or (400 <= status < 500 and _TOO_LONG.search(said)):
        return ContextTooLong(f"{provider}: {said}", hint="send less text or history, or choose a larger model")
    if status in (408, 409) or status >= 500:
        return ProviderFailed(f"{provider} failed (status {status}): {said}", retry_after_s=_retry_after_s(error))
    if status >= 400:
        return ProviderRefused(f"{provider} refuses the request (status {status}): {said}")
    return ProviderFailed(
        f"{provider} answers with status {status}",
        hint="check its base URL; redirects are not followed",
        transient=False,
    )


def cause(error: Exception, key: str | None) -> Exception | None:
    """What to raise an error from: nothing, where a traceback of it would show the key."""
    return None if key and key in f"{error} {error.__cause__} {error.__context__}" else error


def refused_parameter(error: Exception) -> str | None:
    """The parameter a provider does not take for this model, as OpenAI names it; None: that is not the trouble."""
    body = _body(error)
    if getattr(error, "status_code", None) == 400 and body.get("code") in (
        "unsupported_parameter",
        "unsupported_value",
    ):
        return str(body.get("param"))
    return None


def _not_asked(error: BaseException, provider: str) -> ProviderFailed | None:
    """What kept this process itself from asking (pinned.py), under what the libraries made of it."""
    within: BaseException | None = error
    while within is not None:
        if isinstance(within, NeuroEdgeError):
            return ProviderFailed(f"{provider} is not asked: {within.detail}", hint=within.hint, transient=False)
        within = within.__cause__
    return None


def _broken(error: Exception, provider: str) -> ProviderFailed:
    """No text of the failure is repeated: it may hold anything."""
    first = error.__cause__ or error
    if isinstance(first, OSError) or type(first).__module__.partition(".")[0] in _NETWORK:
        return ProviderFailed(f"the connection to {provider} failed: {type(first).__name__}")
    return ProviderFailed(f"{provider} answers what is not understood: {type(first).__name__}")


def _body(error: Exception) -> Mapping[str, Any]:
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _status(error: Exception, body: Mapping[str, Any]) -> int | None:
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status != 200:
        return status
    if not body:
        return None
    for name in (body.get("code"), body.get("type")):
        if isinstance(name, int) and 400 <= name < 600:
            return name
        if name in _KINDS:
            return _KINDS[str(name)]
    return 500


def _said(body: Mapping[str, Any], key: str | None) -> str:
    text = str(body.get("message") or body.get("type") or "it does not say why")
    if key:
        text = text.replace(key, "[key]")
    text = _KEYLIKE.sub("[key]", text)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _retry_after_s(error: Exception) -> int | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3); nonsense is as good as nothing."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
            seconds = (at - at.now(at.tzinfo)).total_seconds()
        except ValueError:
            return None
    return min(MAX_RETRY_AFTER_S, max(0, math.ceil(seconds))) if math.isfinite(seconds) else None
