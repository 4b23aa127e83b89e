"""Live transcription."""

from neuroedge.bootstrap.core import Core
from neuroedge.infra.live_metrics import LiveMetrics
from neuroedge.services.live.options import LiveLimits
from neuroedge.services.live.sessions import LiveSessions


def live_of(core: Core) -> LiveSessions:
    """The sessions of this process; whoever opens the platform closes them."""
    settings = core.settings
    return LiveSessions(
        models=core.pool,
        usage=core.usage,
        clock=core.clock,
        metrics=LiveMetrics(core.metrics.registry),
        limits=LiveLimits(
            sessions=settings.live_sessions,
            max_audio_s=settings.max_audio_s,
            resume_s=settings.live_resume_s,
            stop_s=settings.live_stop_s,
        ),
    )
