"""People's voices, and the names of recordings' speakers by them."""

from neuroedge.bootstrap.core import Core
from neuroedge.services.voice_naming import VoiceNaming
from neuroedge.services.voices import Voices


def voices_of(core: Core) -> tuple[Voices, VoiceNaming]:
    """Enrolment and comparison, and what keeps names up to date."""
    naming = VoiceNaming(db=core.db, runner=core.runner, queue=core.queue)
    return Voices(db=core.db, runner=core.runner, naming=naming), naming
