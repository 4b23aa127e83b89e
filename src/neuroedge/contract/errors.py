"""The one exception tree. Each class carries its HTTP status, a stable code and whether a retry can help.

    NeuroEdgeError 500 internal
    ├── InvalidInput 422 invalid_input
    │   ├── UnsupportedMedia 415 unsupported_media
    │   ├── UnreadableMedia 422 unreadable_media
    │   ├── EmptyMedia 422 empty_media
    │   ├── MediaTooShort 422 media_too_short
    │   ├── ContextTooLong 422 context_too_long
    │   ├── ContentBlocked 422 content_blocked
    │   └── ProviderRefused 422 provider_refused
    ├── BudgetExceeded 402 budget_exceeded
    ├── TooLarge 413 too_large
    ├── Unauthenticated 401 unauthenticated
    ├── Forbidden 403 forbidden
    ├── NotFound 404 not_found
    ├── Conflict 409 conflict
    ├── DeadlineExceeded 408 deadline_exceeded
    ├── Overloaded 429 overloaded
    ├── SealBroken 500 seal_broken
    └── Unavailable 503 unavailable
        ├── CircuitOpen 503 circuit_open
        ├── EngineBlocked 503 engine_blocked
        ├── NotEnoughMemory 503 not_enough_memory
        ├── DeviceLost 503 device_lost
        ├── VaultLocked 503 vault_locked
        ├── ProviderFailed 502 provider_failed
        │   └── ProviderBroke 502 provider_broke
        └── ModelUnavailable 503 model_unavailable
            └── ModelFailed 503 model_failed

Library errors are wrapped once, at the adapter, with `raise ... from`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class NeuroEdgeError(Exception):
    """Base of all errors NeuroEdge raises on purpose; `detail` is safe to show to a caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    usual_retry_after_s: ClassVar[int | None] = None
    """What callers are told where nothing better is known."""

    def __init__(self, detail: str, *, hint: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.retry_after_s = retry_after_s


class InvalidInput(NeuroEdgeError):
    """The payload is well-formed HTTP but breaks the contract."""

    status = 422
    code = "invalid_input"

    def __init__(self, detail: str, *, hint: str | None = None, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(detail, hint=hint)
        self.errors = errors
        """Per field: `loc` (path), `msg`, `type`, as pydantic reports them, without the input."""


class UnsupportedMedia(InvalidInput):
    """The bytes are of no media format NeuroEdge decodes."""

    status = 415
    code = "unsupported_media"


class UnreadableMedia(InvalidInput):
    """The container was recognised but its content is broken."""

    code = "unreadable_media"


class EmptyMedia(InvalidInput):
    """A file without bytes, or without an audio track."""

    code = "empty_media"


class MediaTooShort(InvalidInput):
    """Less audio than the shortest the method can work on."""

    code = "media_too_short"


class ContextTooLong(InvalidInput):
    """A prompt that does not fit the model's context."""

    code = "context_too_long"


class ContentBlocked(InvalidInput):
    """Content the organisation's safety policy lets through neither way; `errors` tells which categories."""

    code = "content_blocked"


class ProviderRefused(InvalidInput):
    """A provider of language models finds the request at fault; another one might not."""

    code = "provider_refused"


class BudgetExceeded(NeuroEdgeError):
    """The organisation, or this user, has spent what may be spent."""

    status = 402
    code = "budget_exceeded"


class TooLarge(NeuroEdgeError):
    """More bytes, seconds or items than the configured limit."""

    status = 413
    code = "too_large"


class Unauthenticated(NeuroEdgeError):
    """No token, or one that is not valid any more."""

    status = 401
    code = "unauthenticated"


class Forbidden(NeuroEdgeError):
    """A valid token without the permission the route asks for."""

    status = 403
    code = "forbidden"


class NotFound(NeuroEdgeError):
    """No such thing in the caller's tenant (another tenant's things look the same)."""

    status = 404
    code = "not_found"


class Conflict(NeuroEdgeError):
    """The change contradicts what is stored."""

    status = 409
    code = "conflict"


class DeadlineExceeded(NeuroEdgeError):
    """The work did not finish within its time limit."""

    status = 408
    code = "deadline_exceeded"
    retryable = True


class Overloaded(NeuroEdgeError):
    """A queue or rate limit is full; `retry_after_s` says when to come back."""

    status = 429
    code = "overloaded"
    retryable = True
    usual_retry_after_s = 5


class Unavailable(NeuroEdgeError):
    """A part NeuroEdge depends on (database, cache, provider) does not answer."""

    status = 503
    code = "unavailable"
    retryable = True
    usual_retry_after_s = 5


class ModelUnavailable(Unavailable):
    """A model's files are missing, changed or do not load; the hint names the command that mends it."""

    code = "model_unavailable"


class ModelFailed(ModelUnavailable):
    """A loaded model raised while it computed; counts against the model's circuit breaker."""

    code = "model_failed"

    def __init__(
        self, detail: str, *, model_id: str = "", hint: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail, hint=hint, retry_after_s=retry_after_s)
        self.model_id = model_id


class NotEnoughMemory(Unavailable):
    """A model does not fit the memory budget now, or the machine ran out of memory while it loaded."""

    code = "not_enough_memory"


class CircuitOpen(Unavailable):
    """Too many failures in a row: not even tried until `retry_after_s` has passed."""

    code = "circuit_open"


class EngineBlocked(Unavailable):
    """An engine held the process's event loop too long and was interrupted."""

    code = "engine_blocked"


class DeviceLost(Unavailable):
    """The exclusive lease of a device could not be taken, or was lost while it was held."""

    code = "device_lost"


def of_code(code: str, detail: str, *, hint: str | None = None) -> NeuroEdgeError:
    """The error a stored code stands for; the base class for a code nobody knows any more."""
    kinds: list[type[NeuroEdgeError]] = [NeuroEdgeError]
    for kind in kinds:
        if kind.code == code:
            return kind(detail, hint=hint)
        kinds += kind.__subclasses__()
    return NeuroEdgeError(detail, hint=hint)


class ProviderFailed(Unavailable):
    """A provider of language models does not answer as it should, before it has said anything."""

    status = 502
    code = "provider_failed"

    def __init__(
        self, detail: str, *, hint: str | None = None, retry_after_s: int | None = None, transient: bool = True
    ) -> None:
        super().__init__(detail, hint=hint, retry_after_s=retry_after_s)
        self.transient = transient
        """Whether the same request may succeed a moment later; not where a key is refused, say."""


class ProviderBroke(ProviderFailed):
    """A provider failed in the middle of its answer: what came so far is all there is."""

    code = "provider_broke"


class VaultLocked(Unavailable):
    """The keys of an organisation cannot be unwrapped."""

    code = "vault_locked"


class SealBroken(NeuroEdgeError):
    """A sealed value was changed, moved, or sealed with a key that is gone."""

    code = "seal_broken"
