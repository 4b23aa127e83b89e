"""Ending what was started."""

import asyncio


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task of ours and wait for it; its own failure is logged by asyncio, not raised into the shutdown."""
    task.cancel()
    await asyncio.wait([task])
