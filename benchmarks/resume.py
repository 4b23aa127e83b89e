"""How long a paused process takes until its LLM is back in memory: `python -m benchmarks.resume`."""

import argparse
import asyncio
import time

from benchmarks.report import figure, save
from neuroedge.bootstrap import catalogue_of
from neuroedge.contract.chat import ChatMessage, ChatRequest
from neuroedge.contract.models import CHAT
from neuroedge.runtimes import device
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.pool import Pool, PoolSettings
from neuroedge.settings import load_settings


async def measure(rounds: int) -> None:
    """Pause and resume with the default LLM loaded and used."""
    cores = device.available_cores()
    pool = Pool(
        catalogue_of(load_settings()),
        PoolSettings(cores=cores, threads=cores, budget_bytes={}),
        router=Router("cpu"),
    )
    pauses, resumes = [], []
    for _ in range(rounds + 1):
        async with pool.lease(CHAT) as llm:
            async for _delta in llm.stream(ChatRequest([ChatMessage(role="user", content="Say hello.")], max_tokens=4)):
                pass
        started = time.perf_counter()
        await pool.pause()
        paused = time.perf_counter()
        await pool.resume()
        pauses.append(paused - started)
        resumes.append(time.perf_counter() - paused)
    await pool.close()
    save(
        "resume",
        [
            figure("resume: the default LLM is in memory again", "s", resumes[1:], at_most=0.8),
            figure("pause: its memory is given back", "s", pauses[1:]),
        ],
        title="Pause and resume of the default LLM",
        command="python -m benchmarks.resume",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(measure(parser.parse_args().rounds))
