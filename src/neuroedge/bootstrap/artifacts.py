"""Artifacts, from the core's parts."""

from neuroedge.bootstrap.core import Core
from neuroedge.services.artifact_generation import ArtifactGeneration
from neuroedge.services.artifact_progress import ArtifactProgress
from neuroedge.services.artifact_versions import ArtifactVersions
from neuroedge.services.artifacts import Artifacts
from neuroedge.services.memory import MemoryService
from neuroedge.services.safety import Safety


def artifacts_of(
    core: Core, memory: MemoryService, safety: Safety | None
) -> tuple[Artifacts, ArtifactVersions, ArtifactGeneration, ArtifactProgress]:
    """Artifacts, their versions, what generates them, and how far that is."""
    progress = ArtifactProgress(db=core.db, events=core.events)
    versions = ArtifactVersions(db=core.db, runner=core.runner, memory=memory, progress=progress)
    generation = ArtifactGeneration(db=core.db, runner=core.runner, versions=versions, progress=progress, safety=safety)
    artifacts = Artifacts(
        db=core.db,
        runner=core.runner,
        queue=core.queue,
        progress=progress,
        versions=versions,
        generation=generation,
    )
    return artifacts, versions, generation, progress
