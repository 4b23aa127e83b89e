"""Uploads that engines read from the organisation's objects and that nobody keeps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from neuroedge.contract.ports import AudioSource
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.services.housekeeping import forget_blobs
from neuroedge.services.recordings import Upload
from neuroedge.stores.ids import new_id


@asynccontextmanager
async def scratch(blobs: TenantBlobs, upload: Upload) -> AsyncIterator[AudioSource]:
    """The upload as engines take it; gone on leaving, or by the next sweep of recordings after a crash."""
    folder = f"scratch/{new_id()}"
    try:
        await blobs.put(f"{folder}/original", upload.path)
        yield AudioSource(blob=f"{folder}/original")
    finally:
        await asyncio.shield(forget_blobs(blobs, folder))
