"""How long a paused process takes until its LLM is back in memory: `python -m benchmarks.resume`.

Beside it, in every round, how long llama.cpp itself takes to open the same file with nothing around it, once opened as
the runtime does, once with its own defaults: what is left between resume and the former is ours.
"""

import argparse
import asyncio
import time
from pathlib import Path

import httpx

from benchmarks.report import figure, save
from neuroedge.bootstrap import catalogue_of
from neuroedge.contract.chat import ChatMessage, ChatRequest
from neuroedge.contract.models import CHAT
from neuroedge.runtimes import device, llama, memory
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.llama_library import llama_library
from neuroedge.runtimes.pool import Pool, PoolSettings
from neuroedge.settings import load_settings


async def measure(rounds: int) -> None:
    """Pause and resume with the default LLM loaded and used."""
    memory.keep_large_blocks_apart()  # as the server does
    settings, cores = load_settings(), device.available_cores()
    pool = Pool(
        catalogue_of(settings),
        PoolSettings(cores=cores, threads=cores, budget_bytes={}),
        router=Router("cpu"),
    )
    pauses, resumes, peers, defaults = [], [], [], []
    for _ in range(rounds + 1):
        async with pool.lease(CHAT) as llm:
            async for _delta in llm.stream(ChatRequest([ChatMessage(role="user", content="Say hello.")], max_tokens=4)):
                pass
        started = time.perf_counter()
        await pool.pause()
        pauses.append(time.perf_counter() - started)
        folder = settings.model_store / pool.status(CHAT).id
        peers.append(_llama_cpp_alone(folder, threads=cores))
        defaults.append(_llama_cpp_by_default(folder))
        started = time.perf_counter()
        await pool.resume()
        resumes.append(time.perf_counter() - started)
    await pool.close()
    save(
        "resume",
        [
            figure("resume: the default LLM is in memory again", "s", resumes[1:], at_most=0.8),
            figure("the same file opened by llama.cpp alone", "s", peers[1:]),
            figure("the same file opened by llama.cpp with its own defaults", "s", defaults[1:]),
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


def _llama_cpp_by_default(folder: Path) -> float:
    """Seconds until its server answers, opened with nothing said but where the file is, and to be quiet."""
    started = time.perf_counter()
    params = llama_library().CommonParams()
    params.model.path, params.verbosity, params.endpoint_metrics = str(folder / "model.gguf"), -1, True
    server = llama_library().Server(params)
    httpx.get(f"{server.listening_address}/health", trust_env=False, verify=False).raise_for_status()
    took_s = time.perf_counter() - started
    server.handle_metrics()  # see runtimes/llama_server.py: one that is freed before its loop runs never ends
    del server
    return took_s


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(measure(parser.parse_args().rounds))
