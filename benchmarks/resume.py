"""How long a paused process takes until its LLM is back in memory: `python -m benchmarks.resume`.

Beside it, in every round, how long llama.cpp itself takes to open the same file with nothing around it: what is left
between the two is ours.
"""

import argparse
import asyncio
import time
from pathlib import Path

from benchmarks.report import figure, save
from neuroedge.bootstrap import catalogue_of
from neuroedge.contract.chat import ChatMessage, ChatRequest
from neuroedge.contract.models import CHAT
from neuroedge.runtimes import device, llama
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.pool import Pool, PoolSettings
from neuroedge.settings import load_settings


async def measure(rounds: int) -> None:
    """Pause and resume with the default LLM loaded and used."""
    settings, cores = load_settings(), device.available_cores()
    pool = Pool(
        catalogue_of(settings),
        PoolSettings(cores=cores, threads=cores, budget_bytes={}),
        router=Router("cpu"),
    )
    pauses, resumes, peers = [], [], []
    for _ in range(rounds + 1):
        async with pool.lease(CHAT) as llm:
            async for _delta in llm.stream(ChatRequest([ChatMessage(role="user", content="Say hello.")], max_tokens=4)):
                pass
        started = time.perf_counter()
        await pool.pause()
        pauses.append(time.perf_counter() - started)
        peers.append(_llama_cpp_alone(settings.model_store / pool.status(CHAT).id, threads=cores))
        started = time.perf_counter()
        await pool.resume()
        resumes.append(time.perf_counter() - started)
    await pool.close()
    save(
        "resume",
        [
            figure("resume: the default LLM is in memory again", "s", resumes[1:], at_most=0.8),
            figure("the same file opened by llama.cpp alone", "s", peers[1:]),
            figure("resume over llama.cpp alone", "×", [r / p for r, p in zip(resumes[1:], peers[1:], strict=True)]),
            figure("pause: its memory is given back", "s", pauses[1:]),
        ],
        title="Pause and resume of the default LLM",
        command="python -m benchmarks.resume",
    )


def _llama_cpp_alone(folder: Path, *, threads: int) -> float:
    """Seconds until its server answers, opened as the runtime opens it."""
    started = time.perf_counter()
    model = llama.load("peer", folder, threads=threads, options={})
    took_s = time.perf_counter() - started
    model.close()
    return took_s


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(measure(parser.parse_args().rounds))
