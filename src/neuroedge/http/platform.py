"""What the HTTP layer works with; bootstrap builds it."""

from dataclasses import dataclass

from neuroedge.infra.events import Events
from neuroedge.infra.limits import RateLimits
from neuroedge.infra.queue import JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.tokens import AccessTokens
from neuroedge.runtimes.catalogue import Catalogue
from neuroedge.runtimes.pool import Pool
from neuroedge.services.accounts import Accounts
from neuroedge.services.recording_progress import RecordingProgress
from neuroedge.services.recordings import Recordings
from neuroedge.services.run_engine import EngineRunner
from neuroedge.settings import Settings
from neuroedge.stores.postgres import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Everything a process of NeuroEdge works with."""

    settings: Settings
    db: Database
    events: Events
    limits: RateLimits
    metrics: Metrics
    pool: Pool
    catalogue: Catalogue
    queue: JobQueue
    tokens: AccessTokens
    accounts: Accounts
    runner: EngineRunner
    recordings: Recordings
    recording_progress: RecordingProgress
