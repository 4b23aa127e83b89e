"""What engines see of documents, pictures and indexes."""

from pathlib import Path

from neuroedge.contract.content import Documents, Pictures
from neuroedge.infra.documents.outcome import ParseLimits
from neuroedge.infra.documents.parser import DocumentParser
from neuroedge.infra.documents.port import ParsedDocuments
from neuroedge.runtimes.pictures import PillowPictures
from neuroedge.settings import Settings


def parse_limits(settings: Settings) -> ParseLimits:
    """What one file may cost."""
    return ParseLimits(
        memory_bytes=settings.document_parse_memory_bytes,
        time_s=settings.document_parse_s,
        pages=settings.document_max_pages,
        characters=settings.document_max_characters,
        file_bytes=settings.document_max_bytes,
    )


def documents_port(settings: Settings, *, tmp: Path) -> Documents:
    """Documents that engines read: at most two at the same time, beside those that are uploaded."""
    return ParsedDocuments(DocumentParser(limits=parse_limits(settings), at_once=2), tmp=tmp)


def pictures_port() -> Pictures:
    """Pictures that engines look at."""
    return PillowPictures()
