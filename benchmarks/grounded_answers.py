"""Which local LLM answers questions about a conversation best, and refuses those it does not answer?

Runs the real engines (search, chat) with the real weights over benchmarks/data/grounded_questions.json, on in-memory
rows. The conversations are split: prompts and thresholds were chosen on `development`, `held-out` was looked at only
for the figures; `sample` is the recorded call with its reference transcript.

    python -m benchmarks.grounded_answers --models-dir DIR [--llm ID ...] [--split NAME ...] [--json FILE]

Runs over all splits are saved: the held-out conversations with the default LLM come first.

Per model and split: grounded = right and accepted answers / answerable questions; cited = of those, the ones with a
citation of a segment that holds the answer; wrong = accepted but not right / answerable; refused = refused /
unanswerable questions; median seconds a question.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from statsmodels.stats.proportion import proportion_confint
from tests.fakes import FakeMemories, make_context

from benchmarks.report import Figure, figure, save
from neuroedge.contract.engine import EngineContext
from neuroedge.contract.ports import NewMemory
from neuroedge.engines.knowledge.search import SearchEngine
from neuroedge.engines.language.chat import ChatEngine, Input, Output
from neuroedge.runtimes import llama, text_encoder

QUESTIONS = Path(__file__).parent / "data" / "grounded_questions.json"
ENCODER = "all-minilm-l6-v2-int8"
LLMS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")


def segments(transcript: Mapping[str, Any], models_dir: Path) -> list[dict[str, Any]]:
    """The conversation's segments, read from its STM file where it names one; speakers become S1, S2 …"""
    if "stm" not in transcript:
        return list(transcript["segments"])
    names: dict[str, str] = {}
    rows = []
    for stm_line in (models_dir / transcript["stm"]).read_text().splitlines():
        _, _, name, start, end, text = stm_line.split(maxsplit=5)
        speaker = names.setdefault(name, f"S{len(names) + 1}")
        rows.append({"speaker": speaker, "start_s": float(start), "end_s": float(end), "text": text})
    return rows


async def remember(transcript: Mapping[str, Any], rows: list[dict[str, Any]], models: Mapping[str, Any]) -> Any:
    """A context that remembers the conversation and answers `search`, with the recording's id."""
    recording_id = uuid4()
    memories = FakeMemories()
    encoder = models["text_embedding"]
    vectors = (await encoder.encode([row["text"] for row in rows])).vectors
    await memories.add(
        [
            NewMemory(
                content=row["text"],
                embedding=vector,
                embedding_model=encoder.model_id,
                title=transcript["title"],
                memory_type="segment",
                metadata={key: row[key] for key in ("speaker", "start_s", "end_s")},
                recording_id=recording_id,
            )
            for row, vector in zip(rows, vectors, strict=True)
        ]
    )
    search = SearchEngine(probe=make_context())

    async def call(name: str, payload: Any) -> Any:
        assert name == "search", name
        return await search.run(payload, inner)

    inner = make_context(models=models, memories=memories)
    return make_context(models=models, memories=memories, call=call), recording_id


def judged(question: Mapping[str, Any], answer: Output, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What came out for one question."""
    right = answer.answered and any(phrase in answer.message.lower() for phrase in question["phrases"])
    texts = {rows[i]["text"] for i in question["evidence"]}
    return {
        "answerable": bool(question["phrases"]),
        "answered": answer.answered,
        "right": right,
        "cited": right and any(citation.quote in texts for citation in answer.citations),
    }


async def ask(
    question: Mapping[str, Any], rows: list[dict[str, Any]], ctx: EngineContext, recording_id: UUID
) -> dict[str, Any]:
    """Ask one question of the chat engine and judge the answer."""
    engine = ChatEngine(probe=ctx)
    started = time.perf_counter()
    answer = await engine.run(Input(message=question["question"], recording_id=recording_id, max_tokens=64), ctx)
    result = judged(question, answer, rows)
    result |= {"seconds": time.perf_counter() - started, "question": question["question"], "message": answer.message}
    result |= {"reason": answer.reason, "quotes": [citation.quote for citation in answer.citations]}
    return result


def figures(results: list[dict[str, Any]]) -> dict[str, float | int]:
    """The rates over one split."""
    answerable = [r for r in results if r["answerable"]]
    others = [r for r in results if not r["answerable"]]
    right = [r for r in answerable if r["right"]]
    return {
        "answerable": len(answerable),
        "grounded": round(len(right) / max(1, len(answerable)), 3),
        "cited": round(sum(r["cited"] for r in right) / max(1, len(right)), 3),
        "wrong": round(sum(r["answered"] and not r["right"] for r in answerable) / max(1, len(answerable)), 3),
        "unanswerable": len(others),
        "refused": round(sum(not r["answered"] for r in others) / max(1, len(others)), 3),
        "median_s": round(statistics.median(r["seconds"] for r in results), 2),
    }


async def measure(llm_id: str, options: argparse.Namespace, transcripts: list[dict[str, Any]]) -> dict[str, Any]:
    """All questions of the chosen splits with one LLM."""
    folder = options.models_dir / llm_id
    llm = llama.load(llm_id, folder, threads=options.threads, options={})
    encoder = text_encoder.load(ENCODER, options.models_dir / ENCODER, threads=options.threads, options={})
    models = {"chat": llm, "text_embedding": encoder}
    by_split: dict[str, list[dict[str, Any]]] = {}
    try:
        for transcript in transcripts:
            rows = segments(transcript, options.models_dir)
            ctx, recording_id = await remember(transcript, rows, models)
            for question in transcript["questions"]:
                result = await ask(question, rows, ctx, recording_id)
                by_split.setdefault(transcript["split"], []).append(result)
                print(_told(llm_id, result), flush=True)
    finally:
        llm.close()
        encoder.close()
    size = (folder / "model.gguf").stat().st_size
    return {"model": llm_id, "bytes": size, "splits": {s: figures(r) for s, r in by_split.items()}, "answers": by_split}


def _saved(measured: list[dict[str, Any]]) -> None:
    """Keep the rates of the splits nothing was chosen on, the default LLM's first."""
    shown: list[Figure] = []
    for result in sorted(measured, key=lambda result: result["model"] != LLMS[-1]):
        for split in ("held-out", "sample"):
            rates, of = result["splits"][split], f"{result['model']}, {split}"
            refused = _share(rates["refused"], int(rates["unanswerable"]), "unanswerable questions")
            right = _share(rates["grounded"], int(rates["answerable"]), "answerable questions")
            wrong = _share(rates["wrong"], int(rates["answerable"]), "answerable questions")
            shown += [
                figure(f"{of}: refused, of unanswerable", "share", [rates["refused"]], note=refused),
                figure(f"{of}: right, of answerable", "share", [rates["grounded"]], note=right),
                figure(f"{of}: cited with a segment that holds it, of right", "share", [rates["cited"]]),
                figure(f"{of}: accepted but wrong, of answerable", "share", [rates["wrong"]], note=wrong),
            ]
    save(
        "grounded_answers",
        shown,
        title="Answers about a conversation, and refusals",
        command="python -m benchmarks.grounded_answers --models-dir DIR",
    )


def _share(share: float, count: int, what: str) -> str:
    """How many, and Wilson's interval (E. B. Wilson 1927, JASA 22)."""
    low, high = proportion_confint(round(share * count), count, method="wilson")
    return f"n = {count} {what}, 95 % {low:.3f} to {high:.3f}"


def _told(llm_id: str, result: Mapping[str, Any]) -> str:
    good = result["right"] if result["answerable"] else not result["answered"]
    asked = "answerable" if result["answerable"] else "unanswerable"
    why = result["reason"] or " | ".join(result["quotes"])
    return f"{'+' if good else '-'} {llm_id} {asked} {result['question']} => {result['message']} ({why})"


def main() -> None:
    """Measure and print; figures as JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path, required=True)
    parser.add_argument("--llm", action="append", help=f"catalogue id, default: {', '.join(LLMS)}")
    parser.add_argument("--split", action="append", help="development, held-out, sample; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    transcripts = json.loads(QUESTIONS.read_text())["transcripts"]
    chosen = [t for t in transcripts if not options.split or t["split"] in options.split]
    measured = [asyncio.run(measure(llm_id, options, chosen)) for llm_id in options.llm or LLMS]
    for result in measured:
        for split, row in result["splits"].items():
            print(f"{result['model']} {result['bytes']} bytes {split}: {row}")
    if not (options.llm or options.split):
        _saved(measured)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
