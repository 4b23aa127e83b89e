"""What the HTTP layer works with; bootstrap builds it."""

import time
from dataclasses import dataclass, field

from neuroedge.infra.breaker import Breakers
from neuroedge.infra.cache.tiered import TieredCache
from neuroedge.infra.events import Events
from neuroedge.infra.inference_metrics import InferenceMetrics
from neuroedge.infra.limits import RateLimits
from neuroedge.infra.queue import JobQueue
from neuroedge.infra.telemetry import Metrics
from neuroedge.infra.tokens import AccessTokens
from neuroedge.runtimes.catalogue import Catalogue
from neuroedge.runtimes.pool import Pool
from neuroedge.services.accounts import Accounts
from neuroedge.services.api_keys import ApiKeys
from neuroedge.services.artifact_generation import ArtifactGeneration
from neuroedge.services.artifact_progress import ArtifactProgress
from neuroedge.services.artifact_versions import ArtifactVersions
from neuroedge.services.artifacts import Artifacts
from neuroedge.services.batch_progress import BatchProgress
from neuroedge.services.batches import Batches
from neuroedge.services.chat.assistant import Assistant
from neuroedge.services.chat.attachments import Attachments
from neuroedge.services.chat.progress import SessionProgress
from neuroedge.services.chat.search import MessageSearch
from neuroedge.services.chat.sessions import Chats
from neuroedge.services.chat.sweep import ChatSweep
from neuroedge.services.chat.takeover import Takeovers
from neuroedge.services.chat.transfer import ChatTransfer
from neuroedge.services.divisions import Divisions
from neuroedge.services.document_process import DocumentProcess
from neuroedge.services.document_progress import DocumentProgress
from neuroedge.services.documents import Documents
from neuroedge.services.federated import Federations
from neuroedge.services.federated_rounds import FederatedRounds
from neuroedge.services.files import Files
from neuroedge.services.idempotency import Idempotency
from neuroedge.services.images import Images
from neuroedge.services.index import MemoryIndex
from neuroedge.services.keys import KeyCare
from neuroedge.services.knowledge import Knowledge
from neuroedge.services.learners import Learners
from neuroedge.services.live.sessions import LiveSessions
from neuroedge.services.llm.budgets import Budgets
from neuroedge.services.llm.providers import Providers
from neuroedge.services.llm.reports import UsageReports
from neuroedge.services.mcp_tools import McpTools
from neuroedge.services.memory import MemoryService
from neuroedge.services.memory_merge import MemoryMerge
from neuroedge.services.memory_transfer import MemoryTransfer
from neuroedge.services.policies import Policies
from neuroedge.services.privacy import Privacy
from neuroedge.services.recording_progress import RecordingProgress
from neuroedge.services.recordings import Recordings
from neuroedge.services.reembedding import Reembedding
from neuroedge.services.reload import EngineReloader
from neuroedge.services.reviews import Reviews
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.safety import Safety
from neuroedge.services.safety_sweep import SafetySweep
from neuroedge.services.speech_output import SpeechOutputs
from neuroedge.services.switches import Switches
from neuroedge.services.task_progress import TaskProgress
from neuroedge.services.tasks import Tasks
from neuroedge.services.trained import TrainedCatalogue
from neuroedge.services.voice_naming import VoiceNaming
from neuroedge.services.voices import Voices
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
    inference_metrics: InferenceMetrics
    breakers: Breakers
    cache: TieredCache
    pool: Pool
    catalogue: Catalogue
    queue: JobQueue
    tokens: AccessTokens
    accounts: Accounts
    api_keys: ApiKeys
    idempotency: Idempotency
    runner: EngineRunner
    speech_output: SpeechOutputs
    reloader: EngineReloader
    recordings: Recordings
    recording_progress: RecordingProgress
    voices: Voices
    voice_naming: VoiceNaming
    documents: Documents
    document_progress: DocumentProgress
    document_process: DocumentProcess
    knowledge: Knowledge
    learners: Learners
    policies: Policies
    federations: Federations
    federated_rounds: FederatedRounds
    memories: MemoryService
    memory_merge: MemoryMerge
    memory_transfer: MemoryTransfer
    divisions: Divisions
    privacy: Privacy
    keys: KeyCare
    memory_index: MemoryIndex
    reembedding: Reembedding
    mcp_tools: McpTools
    files: Files
    images: Images
    assistant: Assistant
    chats: Chats
    chat_attachments: Attachments
    chat_search: MessageSearch
    chat_transfer: ChatTransfer
    chat_sweep: ChatSweep
    chat_takeovers: Takeovers
    session_progress: SessionProgress
    artifacts: Artifacts
    artifact_versions: ArtifactVersions
    artifact_generation: ArtifactGeneration
    artifact_progress: ArtifactProgress
    safety: Safety
    safety_sweep: SafetySweep
    reviews: Reviews
    tasks: Tasks
    task_progress: TaskProgress
    batches: Batches
    batch_progress: BatchProgress
    trained: TrainedCatalogue
    providers: Providers
    budgets: Budgets
    usage_reports: UsageReports
    live: LiveSessions
    switches: Switches
    started: float = field(default_factory=time.monotonic)
