"""What is taken in and remembered: recordings, documents, memories, knowledge, and what the law asks of them."""

from neuroedge.bootstrap.content_ports import parse_limits
from neuroedge.bootstrap.core import Core
from neuroedge.contract.models import OCR
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.fetch import Fetcher
from neuroedge.runtimes.pool import Pool
from neuroedge.services.document_process import ChunkSize, DocumentProcess
from neuroedge.services.document_progress import DocumentProgress
from neuroedge.services.documents import Documents
from neuroedge.services.knowledge import Knowledge
from neuroedge.services.page_reader import EnginePageReader
from neuroedge.services.recording_progress import RecordingProgress
from neuroedge.services.recordings import Recordings
from neuroedge.services.run_engine import EngineRunner
from neuroedge.services.scanned_pages import OpenLeafReader, ScannedPages
from neuroedge.services.task_progress import TaskProgress
from neuroedge.services.tasks import Tasks


def recordings_of(core: Core) -> tuple[Recordings, RecordingProgress]:
    """Recordings, and how far they are."""
    progress = RecordingProgress(db=core.db, events=core.events)
    return Recordings(
        db=core.db, runner=core.runner, queue=core.queue, progress=progress, settings=core.settings
    ), progress


def documents_of(
    core: Core, recordings: Recordings, knowledge: Knowledge
) -> tuple[Documents, DocumentProgress, DocumentProcess]:
    """Documents, how far they are, and what reads them."""
    settings = core.settings
    parser = DocumentParser(limits=parse_limits(settings), at_once=2)
    progress = DocumentProgress(db=core.db, events=core.events)
    page_reader = page_reader_of(core.runner, core.pool)
    fetcher = Fetcher(
        hosts=settings.document_hosts, max_bytes=settings.document_max_bytes, timeout_s=settings.document_fetch_s
    )
    documents = Documents(
        db=core.db,
        runner=core.runner,
        queue=core.queue,
        progress=progress,
        recordings=recordings,
        parser=parser,
        fetcher=fetcher,
        tmp=core.tmp,
        reads_images=page_reader is not None,
    )
    process = DocumentProcess(
        db=core.db,
        runner=core.runner,
        progress=progress,
        scanned=ScannedPages(db=core.db, parser=parser, progress=progress, tmp=core.tmp, open_reader=page_reader),
        knowledge=knowledge,
        size=ChunkSize(capacity_tokens=settings.chunk_tokens, overlap_tokens=settings.chunk_overlap_tokens),
    )
    return documents, progress, process


def tasks_of(core: Core) -> tuple[Tasks, TaskProgress]:
    """Background tasks, and how far they are."""
    progress = TaskProgress(db=core.db, events=core.events)
    tasks = Tasks(
        db=core.db,
        runner=core.runner,
        queue=core.queue,
        progress=progress,
        clock=core.clock,
        keep_days=core.settings.task_keep_days,
        max_unfinished=core.settings.task_queue_limit,
    )
    return tasks, progress


def page_reader_of(runner: EngineRunner, pool: Pool) -> OpenLeafReader | None:
    """What reads scans; None where no OCR model is installed."""
    status = pool.status(OCR)
    if status.state == "missing":
        return None
    return lambda principal, request_id: EnginePageReader(runner, principal, request_id=request_id, model_id=status.id)
