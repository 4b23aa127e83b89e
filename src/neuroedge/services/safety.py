"""Safety in three passes: what a user writes, what is retrieved for the model, what the model answers.

The organisation's policy says what is looked for in each pass and what then happens. What was decided is kept with its
reasons (category, p, threshold, places), never with the text.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Protocol
from uuid import UUID

import structlog
from pydantic import ValidationError

from neuroedge.contract.chat import ChatDelta
from neuroedge.contract.errors import ContentBlocked, DeadlineExceeded, NeuroEdgeError, TooLarge
from neuroedge.contract.principal import Principal
from neuroedge.engines.language.moderation import MAX_CHARS
from neuroedge.infra.personal_data import NationalIdentifiers
from neuroedge.infra.safety_metrics import SafetyMetrics
from neuroedge.kit.personal_data import Found, masked
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.safety_findings import Findings, Reason, find
from neuroedge.services.safety_policy import STRICTNESS, Action, PassPolicy, SafetyPolicy, Stage
from neuroedge.services.safety_stream import guarded
from neuroedge.stores import ledgers, safety
from neuroedge.stores.postgres import Database
from neuroedge.stores.safety import Decision

log = structlog.get_logger(__name__)

POLICY_KEPT_S: Final = 10.0
"""Another process's change of the policy holds here after so long."""
_CHECK_S: Final = 30.0
_MOST_NOTED: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the policy says about a text."""

    action: Action
    text: str
    """What may be used: as given, or with placeholders; empty when blocked."""
    stage: Stage
    reasons: Sequence[Reason] = ()
    decision_id: UUID | None = None
    """Under which it is kept; None for what is allowed."""

    def passed(self) -> str:
        """The text that may be used. Raises ContentBlocked."""
        if self.action != "block":
            return self.text
        names = ", ".join(sorted({reason.category for reason in self.reasons if reason.action == "block"}))
        raise ContentBlocked(
            f"the safety policy of your organisation blocks this {self.stage}: {names}",
            hint="GET /v1/safety/decisions tells why; who manages the organisation can change the policy",
            errors=[
                {"loc": [self.stage], "msg": f"{r.category} {r.p} reaches {r.threshold}", "type": r.rule}
                for r in self.reasons
                if r.action == "block"
            ],
        )


class ReviewInbox(Protocol):
    """Where texts for reviewers go."""

    async def add_by_rule(self, principal: Principal, *, decision_id: UUID, stage: Stage, text: str) -> None:
        """Queue a text that a rule acted on."""
        ...


@dataclass(slots=True)
class _Kept:
    policy: SafetyPolicy
    read_at: float


class Safety:
    """Judges texts by the policy of the caller's organisation."""

    def __init__(
        self,
        *,
        db: Database,
        runner: EngineRunner,
        identifiers: NationalIdentifiers,
        metrics: SafetyMetrics,
        reviews: ReviewInbox,
    ) -> None:
        self._db = db
        self._runner = runner
        self._identifiers = identifiers
        self._metrics = metrics
        self._reviews = reviews
        self._policies: dict[UUID, _Kept] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Finish what is being noted, and end the thread that looks for identifiers."""
        await self._settled()
        await asyncio.to_thread(self._identifiers.close)

    async def _settled(self) -> None:
        if self._noting:
            await asyncio.wait(self._noting, timeout=_CHECK_S)

    async def policy(self, principal: Principal) -> SafetyPolicy:
        """The organisation's policy, read again after POLICY_KEPT_S."""
        kept = self._policies.get(principal.org_id)
        if kept is None or time.monotonic() - kept.read_at > POLICY_KEPT_S:
            async with self._db.tenant(principal) as conn:
                stored = await safety.policy(conn, principal.org_id)
            kept = self._policies[principal.org_id] = _Kept(_read(stored), time.monotonic())
        return kept.policy

    async def set_policy(self, principal: Principal, policy: SafetyPolicy, *, request_id: str) -> SafetyPolicy:
        """Replace the organisation's policy; at once here, in other processes after POLICY_KEPT_S."""
        async with self._db.tenant(principal) as conn:
            await safety.set_policy(
                conn, org_id=principal.org_id, policy=policy.model_dump(mode="json"), changed_by=principal.user_id
            )
            await ledgers.add_audit(
                conn,
                org_id=principal.org_id,
                user_id=principal.user_id,
                request_id=request_id,
                action="safety.policy_changed",
                target=f"organisation:{principal.org_id}",
                detail=policy.model_dump(mode="json"),
            )
        self._policies[principal.org_id] = _Kept(policy, time.monotonic())
        return policy

    async def check(
        self, principal: Principal, text: str, *, stage: Stage, request_id: str, remember: bool = True
    ) -> Verdict:
        """What the policy says about a text; without `remember` nothing is kept of it, for trying things out.

        Raises TooLarge above 1,000,000 characters, DeadlineExceeded. A model that is away is no error: the policy's
        `when_unchecked` says what happens then.
        """
        policy = await self.policy(principal)
        rules = getattr(policy, stage).rules
        if not rules or not text.strip():
            return Verdict(action="allow", text=text, stage=stage)
        if len(text) > MAX_CHARS:
            raise TooLarge(f"a text of {len(text)} characters is too long to be checked", hint=f"at most {MAX_CHARS}")
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_CHECK_S):
                ctx = self._runner.context(principal, request_id=request_id)
                found = await find(text, rules, ctx, self._identifiers, stage=stage)
        except TimeoutError as error:
            raise DeadlineExceeded(f"the text could not be checked within {_CHECK_S:g} s", hint="send less") from error
        verdict = _decide(text, found, stage=stage, when_unchecked=policy.when_unchecked)
        self._metrics.observe(stage, verdict.action, time.perf_counter() - started)
        if remember and verdict.action != "allow":
            verdict = await self._keep(principal, text, verdict, getattr(policy, stage), request_id=request_id)
        return verdict

    async def stream(
        self, principal: Principal, deltas: AsyncGenerator[ChatDelta, None], *, request_id: str
    ) -> AsyncGenerator[ChatDelta, None]:
        """An answer as it may be sent. Where the policy can block or mask outputs, text is held back to the end of its
        sentence and judged before any of it is sent; a blocked one ends the answer with `finish_reason`
        "content_filter" and closes `deltas`. Else the pieces go through as they come, and the whole is noted after
        its end.
        """
        output = (await self.policy(principal)).output

        async def check(text: str) -> Verdict:
            return await self.check(principal, text, stage="output", request_id=request_id)

        async def note(text: str) -> None:
            await self.note(principal, [("output", text)], request_id=request_id)

        judged = guarded(deltas, check=check if output.changes_text() else None, note=note if output.rules else None)
        async with aclosing(judged):
            async for delta in judged:
                yield delta

    async def note(self, principal: Principal, texts: Sequence[tuple[Stage, str]], *, request_id: str) -> None:
        """Judge texts of which nothing is held back; the caller waits only when many are being noted already."""
        task = asyncio.create_task(self._noted(principal, texts, request_id))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)
        if len(self._noting) > _MOST_NOTED:
            await asyncio.wait(self._noting, return_when=asyncio.FIRST_COMPLETED)

    async def _noted(self, principal: Principal, texts: Sequence[tuple[Stage, str]], request_id: str) -> None:
        try:
            for stage, text in texts:
                await self.check(principal, text, stage=stage, request_id=request_id)
        except NeuroEdgeError as error:
            self._metrics.not_kept.inc()
            log.warning("not_noted", code=error.code, detail=error.detail)

    async def decisions(
        self,
        principal: Principal,
        *,
        everybody: bool,
        limit: int,
        before: UUID | None = None,
        stage: Stage | None = None,
        action: str | None = None,
    ) -> list[Decision]:
        """Newest first: the caller's own, or everybody's in the organisation."""
        await self._settled()
        async with self._db.tenant(principal) as conn:
            return await safety.decisions(
                conn,
                org_id=principal.org_id,
                user_id=None if everybody else principal.user_id,
                limit=limit,
                before=before,
                stage=stage,
                action=action,
            )

    async def _keep(
        self, principal: Principal, text: str, verdict: Verdict, policy: PassPolicy, *, request_id: str
    ) -> Verdict:
        """Keep the decision, with an audit row for a block. What was decided holds, even if it cannot be kept."""
        assert verdict.action != "allow"
        try:
            async with self._db.tenant(principal) as conn:
                decision_id = await safety.add_decision(
                    conn,
                    org_id=principal.org_id,
                    user_id=principal.user_id,
                    request_id=request_id,
                    stage=verdict.stage,
                    action=verdict.action,
                    reasons=[reason.as_json() for reason in verdict.reasons],
                    chars=len(text),
                )
                if verdict.action == "block":
                    await ledgers.add_audit(
                        conn,
                        org_id=principal.org_id,
                        user_id=principal.user_id,
                        request_id=request_id,
                        action="safety.blocked",
                        target=f"safety_decision:{decision_id}",
                        detail={"stage": verdict.stage, "rules": [r.rule for r in verdict.reasons]},
                    )
            if verdict.action in policy.review:
                await self._reviews.add_by_rule(principal, decision_id=decision_id, stage=verdict.stage, text=text)
        except NeuroEdgeError as error:
            self._metrics.not_kept.inc()
            log.error("safety_decision_not_kept", stage=verdict.stage, action=verdict.action, error=error.detail)
            return verdict
        return replace(verdict, decision_id=decision_id)


def _read(stored: safety.StoredPolicy | None) -> SafetyPolicy:
    """A stored policy; the platform's own where there is none."""
    if stored is None:
        return SafetyPolicy()
    try:
        return SafetyPolicy.model_validate(stored.policy)
    except ValidationError as error:  # written by another version
        raise NeuroEdgeError("the stored safety policy is not one this version understands") from error


def _decide(text: str, found: Findings, *, stage: Stage, when_unchecked: Action) -> Verdict:
    reasons = list(found.reasons)
    if found.unchecked:
        reasons.append(
            Reason(
                category="unchecked",
                action=when_unchecked,
                p=None,
                threshold=None,
                rule="when_unchecked",
                details=sorted(set(found.unchecked)),
            )
        )
    action: Action = max((r.action for r in reasons), key=STRICTNESS.__getitem__, default="allow")
    if action == "block":
        text = ""
    elif action == "mask":
        text = masked(text, _widest(place for r in reasons if r.action == "mask" for place in r.places))
    return Verdict(action=action, text=text, stage=stage, reasons=reasons)


def _widest(places: Iterable[Found]) -> list[Found]:
    """Places that overlap as one, by the name of the longest: nothing of any of them stays."""
    merged: list[Found] = []
    for place in sorted(places):
        if merged and place.start < merged[-1].end:
            last = merged[-1]
            longest = max(last, place, key=lambda f: f.end - f.start)
            merged[-1] = Found(last.start, max(last.end, place.end), longest.type, longest.score)
        else:
            merged.append(place)
    return merged
