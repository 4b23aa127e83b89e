"""What is recognised of a session's speech, and when: partials while somebody speaks, the whole at its end."""

import time
from dataclasses import replace
from typing import Final

import structlog

from neuroedge.contract.errors import InvalidInput, NeuroEdgeError
from neuroedge.contract.models import SAMPLE_RATE_HZ, VOICE_FRAME
from neuroedge.infra.live_metrics import LiveMetrics
from neuroedge.kit.signal import clipped_fraction
from neuroedge.services.live import reports
from neuroedge.services.live.cutting import sentence_cut
from neuroedge.services.live.events import EventLog
from neuroedge.services.live.options import LiveOptions
from neuroedge.services.live.recogniser import Recogniser
from neuroedge.services.live.turns import AFTER, LONG_S, Turns
from neuroedge.services.live.utterance import Heard, Utterance

log = structlog.get_logger(__name__)
_FIRST_S: Final = 0.3
"""Speech there must be before the first partial."""
_STEP_S: Final = 0.35
"""New sound between two partials."""
_FIRST_STEP_S: Final = 0.16
"""The same while no word was heard yet: the pieces are short, and somebody waits for the first one."""
_LEISURE: Final = 1.5
"""Between two partials at least so many times as long as one took: others want the model too."""
_PAUSE_S: Final = 0.22
"""Silence after which the utterance is recognised as if it were over: if it is, its text is ready at once."""
_HESITATION_S: Final = 0.09
"""Silence after which no partial is begun: if this is a pause, what it is recognised by must not wait for that."""
_SENTENCE_S: Final = 3.0
"""An utterance that is long ends with its last sentence of at least that much: its end must not wait for all of it."""
_AHEAD_S: Final = 0.6
"""Sound after a sentence before it is cut off: how it ends is heard wrong without."""


class Hearing:
    """Recognises the turns of one session and tells their text, one piece of work after the other."""

    def __init__(
        self, *, turns: Turns, recogniser: Recogniser, options: LiveOptions, events: EventLog, metrics: LiveMetrics
    ) -> None:
        self._turns, self._recogniser, self._options = turns, recogniser, options
        self._events, self._metrics = events, metrics
        self._partial_s = 0.0

    async def next(self) -> bool:
        """One piece of work; False when there is none."""
        if self._turns.finished:
            utterance = self._turns.finished[0]
            if not utterance.dropped:
                await self._finalise(utterance)
            self._turns.finished.popleft()
            return True
        current, end = self._turns.current, self._turns.judged
        if current is None or (end - current.speech_start) < _FIRST_S * SAMPLE_RATE_HZ:
            return False
        speech_end = self._turns.speech_end
        heard_early = current.spoken_early is not None and current.spoken_early[0] == speech_end
        if self._turns.endpoints.quiet_s >= _PAUSE_S and not heard_early:
            await self._hear_early(current, speech_end)
            return True
        if self._turns.endpoints.quiet_s >= _HESITATION_S:
            return False
        step_s = max(_STEP_S if current.told else _FIRST_STEP_S, _LEISURE * self._partial_s)
        if self._options.partials and end - current.heard_until >= step_s * SAMPLE_RATE_HZ:
            await self._hear_partly(current, end)
            return True
        return False

    async def _hear_partly(self, utterance: Utterance, end: int) -> None:
        """A partial, of what there is of the utterance."""
        first, utterance.heard_until = not utterance.told, end
        began = time.monotonic()
        heard = await self._try_to_hear(utterance, end, thorough=False)
        if heard is None:
            return
        self._partial_s = time.monotonic() - began
        self._tell_partial(utterance, heard, end)
        if first and utterance.told:
            self._metrics.first_partial_seconds.observe(self._turns.ago_s(utterance.speech_start))
        if self._turns.current is utterance and end - utterance.start >= LONG_S * SAMPLE_RATE_HZ:
            await self._shorten(utterance, end)

    async def _shorten(self, utterance: Utterance, end: int) -> None:
        """End the long utterance that goes on with a sentence; both sides are recognised once more, as one."""
        sentence = utterance.sentence_end(_SENTENCE_S)
        if sentence is None or sentence == utterance.not_cut_at or self._turns.endpoints.quiet_s:
            return
        utterance.not_cut_at = sentence
        heard = await self._try_to_hear(utterance, end, thorough=True)
        if heard is None or self._turns.current is not utterance:
            return
        sound = self._turns.tape.slice(utterance.start, end)
        cut = sentence_cut(heard.words, sound, start=utterance.start, least_s=_SENTENCE_S, ahead_s=_AHEAD_S)
        if cut is not None:
            utterance.spoken = replace(heard, words=cut.before)
            self._turns.endpoints.cut(cut.at // VOICE_FRAME)
            self._turns.cut(utterance, cut.at).agreement.update(cut.after, heard_until_s=end / SAMPLE_RATE_HZ)

    async def _hear_early(self, utterance: Utterance, speech_end: int) -> None:
        """What the utterance will have been, if the pause turns out to be its end."""
        end = min(speech_end + AFTER, self._turns.tape.end)
        heard = await self._try_to_hear(utterance, end, thorough=True)
        utterance.spoken_early = speech_end, heard  # where there is none, the end itself tries again
        if heard is not None and self._options.partials and utterance.end is None:
            self._tell_partial(utterance, heard, end)

    async def _try_to_hear(self, utterance: Utterance, end: int, *, thorough: bool) -> Heard | None:
        """A recognition that the session can do without; None when it failed."""
        try:
            return await self._recogniser.hear_of(utterance, self._turns.tape, end, thorough=thorough)
        except InvalidInput:
            raise
        except NeuroEdgeError as error:
            log.warning("live_partial_failed", code=error.code, detail=error.detail)
            return None

    def _tell_partial(self, utterance: Utterance, heard: Heard, end: int) -> None:
        agreement = utterance.agreement
        agreement.update(heard.words, heard_until_s=end / SAMPLE_RATE_HZ)
        told = reports.partial(utterance)
        if told["text"] != utterance.told and utterance.end is None:
            utterance.told = told["text"]
            self._events.add("partial", **told)

    async def _finalise(self, utterance: Utterance) -> None:
        assert utterance.end is not None
        heard, failure = utterance.spoken, None
        early = utterance.spoken_early
        if early is not None and min(early[0] + AFTER, self._turns.tape.end) == utterance.end:
            heard = early[1]
        if heard is None:
            try:
                heard = await self._recogniser.hear_of(utterance, self._turns.tape, utterance.heard_end, thorough=True)
            except InvalidInput:
                raise
            except NeuroEdgeError as error:
                failure = error
        if utterance.dropped:
            return  # meanwhile
        if failure is not None:
            self._events.add("error", fatal=False, utterance=utterance.number, **reports.problem(failure))
        # The end has the last word: what partials agreed on was heard with less before it and after.
        agreement = utterance.agreement
        words = heard.words if heard is not None else agreement.finish(agreement.unstable)
        if words:
            self._turns.language = (heard.language if heard is not None else None) or self._turns.language
            clipped = clipped_fraction(self._turns.tape.slice(utterance.start, utterance.end))
            self._events.add("final", **reports.final(utterance, words, heard, clipped=clipped, failure=failure))
            if not failure:
                self._metrics.final_seconds.observe(self._turns.ago_s(utterance.end - AFTER))
        else:
            self._events.add("final", **reports.nothing(utterance))
