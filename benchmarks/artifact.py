"""Artifacts of the local model opened again by other readers than the engine's own, type by type.

    python -m benchmarks.artifact --models DIR [--llm ID]

The orders below are answered by the real engine with the real weights, at temperature 0. What comes out is opened by
jsonschema (json), csv (tables), Python's parser, which must also find the function that was asked for (code),
markdown-it (document: a heading and a part), and for diagrams by the kind that was asked for with edges between things
that are named; slides are counted. What was cut off by the limit of tokens does not count. The baseline of the same
run is the model's first free answer to the same conversation: no grammar, no repair. The orders were written for this
benchmark and nothing was tuned on them. The interval is of a bootstrap over orders (seed 0).
"""

import argparse
import ast
import asyncio
import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from tests.fakes import make_context

from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.contract.chat import ChatMessage, ChatRequest
from neuroedge.contract.engine import EngineContext
from neuroedge.engines.language.artifact import ArtifactEngine, Input
from neuroedge.kit import artifact_prompts as prompts
from neuroedge.kit.artifact_checks import SLIDES_SCHEMA, TYPES, rendered_table
from neuroedge.runtimes import llama
from neuroedge.settings import default_data_dir

DEFAULT_LLM: Final = "qwen2.5-coder-0.5b-instruct"
MAX_TOKENS: Final = 256


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT: Final = {"type": "string", "maxLength": 60}
ORDERS: Final[tuple[dict[str, Any], ...]] = (
    {
        "type": "json",
        "instruction": "A pump called P7 that has run 1200 hours.",
        "json_schema": _object(name=TEXT, hours={"type": "integer", "minimum": 0}),
    },
    {
        "type": "json",
        "instruction": "A meeting on 3 May with Anna and Ravi in room 12.",
        "json_schema": _object(
            date=TEXT, people={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 5}, room={"type": "integer"}
        ),
    },
    {
        "type": "json",
        "instruction": "A question with four answers about the water cycle, one of them right.",
        "json_schema": _object(
            question=TEXT,
            answers={"type": "array", "items": TEXT, "minItems": 4, "maxItems": 4},
            right={"type": "integer", "minimum": 0, "maximum": 3},
        ),
    },
    {"type": "table", "instruction": "Four planets with their order from the sun and whether they have rings."},
    {"type": "table", "instruction": "A cleaning plan for three days: day, room, who."},
    {"type": "table", "format": "json", "instruction": "Three fruits with colour and price."},
    {"type": "code", "format": "python", "instruction": "A function `is_even(n)` that tells whether n is even."},
    {"type": "code", "format": "python", "instruction": "A function `mean(values)` that gives the mean of a list."},
    {"type": "code", "format": "python", "instruction": "A function `words(text)` that counts each word of a text."},
    {"type": "diagram", "instruction": "A flowchart: a ticket is opened, somebody answers it, it is closed."},
    {"type": "diagram", "instruction": "A sequenceDiagram: the browser asks the server, the server asks the database."},
    {"type": "diagram", "instruction": "A flowchart: if the alarm rings, leave the house, otherwise go on working."},
    {"type": "document", "instruction": "How to start and how to stop the pump, in two parts of one sentence each."},
    {"type": "document", "instruction": "Minutes of a meeting: one decision and one task, a part for each."},
    {"type": "document", "instruction": "A lesson on fractions: aim and material, a part of one sentence for each."},
    {"type": "slides", "slides": 2, "instruction": "Why we save energy."},
    {"type": "slides", "slides": 3, "instruction": "The water cycle for pupils."},
    {"type": "slides", "slides": 2, "instruction": "Safety at the boiler."},
)


@dataclass
class Judged:
    """One order: what the engine and the free answer came to."""

    type: str
    valid: bool
    said_valid: bool
    whole: bool
    """Whether the hash and the parts of the answer fit its content."""
    free: bool
    attempts: int = 1
    notes: list[str] = field(default_factory=list)


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models", help="the model store")
    parser.add_argument("--llm", default=DEFAULT_LLM, help="catalogue id of the language model")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    judged = asyncio.run(_measured(asked.models / asked.llm, asked.llm, threads=asked.threads))
    save(
        "artifact",
        _figures(judged, asked.llm),
        title="Artifacts opened again by other readers",
        command=f"python -m benchmarks.artifact --models DIR --llm {asked.llm}",
    )


async def _measured(folder: Path, llm_id: str, *, threads: int) -> list[Judged]:
    llm = llama.load(llm_id, folder, threads=threads, options={})
    ctx = make_context(models={"chat": llm})
    judged = []
    try:
        for order in ORDERS:
            one = await _judged(Input(**order, max_tokens=MAX_TOKENS), ctx)
            print(one, flush=True)
            judged.append(one)
    finally:
        llm.close()
    return judged


async def _judged(order: Input, ctx: EngineContext) -> Judged:
    made = await ArtifactEngine(probe=ctx).run(order, ctx)
    free = await _free(order, ctx)
    whole = made.sha256 == hashlib.sha256(made.artifact.encode()).hexdigest() and bool(made.title)
    return Judged(
        type=order.type,
        valid=opens(order, made.artifact) and not any(check.name == "complete" for check in made.checks),
        said_valid=made.valid,
        whole=whole,
        free=free is not None and opens(order, free),
        attempts=made.attempts,
        notes=[check.detail for check in made.checks if check.ok is False],
    )


async def _free(order: Input, ctx: EngineContext) -> str | None:
    """The model's first answer to the same conversation, without grammar or repair; None when it was cut off."""
    told = prompts.system(order.type, format_=order.format or "", schema=order.json_schema, slides=order.slides)
    messages = [
        ChatMessage(role="system", content=told),
        ChatMessage(role="user", content=prompts.request(order.instruction, context=[], present=None)),
    ]
    deltas = [delta async for delta in ctx.llm.stream(ChatRequest(messages, max_tokens=MAX_TOKENS))]
    if any(delta.finish_reason == "length" for delta in deltas):
        return None
    content = prompts.unwrapped(order.type, "".join(delta.text for delta in deltas))
    if order.type != "table":
        return content
    try:
        return rendered_table(content, order.format or "csv")
    except ValueError:
        return content


def opens(order: Input, content: str) -> bool:
    """Whether another reader takes the content for what was asked."""
    try:
        return _READERS[order.type](order, content)
    except (ValueError, SyntaxError, csv.Error, TypeError, KeyError, AttributeError):
        return False


def _json(order: Input, content: str) -> bool:
    from jsonschema import Draft202012Validator

    assert order.json_schema is not None
    return Draft202012Validator(order.json_schema).is_valid(json.loads(content))


def _table(order: Input, content: str) -> bool:
    if order.format == "json":
        rows = json.loads(content)
        return len(rows) > 1 and len({tuple(row) for row in rows}) == 1 and len(rows[0]) > 1
    lines = list(csv.reader(io.StringIO(content), strict=True))
    return len(lines) > 2 and len({len(line) for line in lines}) == 1 and len(lines[0]) > 1


def _code(order: Input, content: str) -> bool:
    wanted = re.findall(r"`(\w+)\(", order.instruction)[0]
    return any(isinstance(node, ast.FunctionDef) and node.name == wanted for node in ast.walk(ast.parse(content)))


def _diagram(order: Input, content: str) -> bool:
    lines = [line.strip() for line in content.strip().splitlines() if line.strip()]
    if "sequenceDiagram" in order.instruction:
        said = [re.fullmatch(r"\S.*?\s*-{1,2}>{1,2}\+?-?\s*\S.*?:.*", line) for line in lines[1:]]
        return lines[0] == "sequenceDiagram" and sum(map(bool, said)) > 1
    edges = [line for line in lines[1:] if re.match(r"^\w+\S*.*(-->|---|-\.->|==>)\s*.*\w", line)]
    return bool(re.fullmatch(r"(flowchart|graph) (TD|TB|LR|RL|BT);?", lines[0])) and len(edges) > 1


def _document(order: Input, content: str) -> bool:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt().parse(content)
    heads = [token.tag for token in tokens if token.type == "heading_open"]
    return bool(heads) and heads[0] == "h1" and len(heads) > 1 and any(t.type == "inline" and t.content for t in tokens)


def _slides(order: Input, content: str) -> bool:
    from jsonschema import Draft202012Validator

    outline = json.loads(content)
    return Draft202012Validator(SLIDES_SCHEMA).is_valid(outline) and len(outline["slides"]) == order.slides


_READERS: Final = {
    "json": _json,
    "table": _table,
    "code": _code,
    "diagram": _diagram,
    "document": _document,
    "slides": _slides,
}


def _figures(judged: Sequence[Judged], llm_id: str) -> list[Figure]:
    valid = np.array([one.valid for one in judged])
    free = np.array([one.free for one in judged])
    low, high = interval(len(valid), lambda rows: valid[rows].mean())
    wrongly = [one for one in judged if one.said_valid and not one.valid]
    note = f"n={len(judged)}; 95 % interval {low:.3f} to {high:.3f} (bootstrap over orders); {llm_id}"
    figures = [
        figure("open as what was asked, all types", "share", [float(valid.mean())], at_least=free.mean(), note=note),
        figure("the model's first free answer, all types", "share", [float(free.mean())], note="baseline, same run"),
        figure(
            "called valid, and another reader finds otherwise",
            "share",
            [len(wrongly) / len(judged)],
            note=f"{len(wrongly)} of {len(judged)}: {', '.join(sorted({one.type for one in wrongly})) or 'none'}",
        ),
        figure("hash and title fit the content", "share", [float(np.mean([o.whole for o in judged]))], at_least=1.0),
        figure("written twice", "share", [float(np.mean([one.attempts > 1 for one in judged]))]),
    ]
    for type_ in TYPES:
        own = [one for one in judged if one.type == type_]
        share = float(np.mean([one.valid for one in own]))
        figures.append(
            figure(
                f"open as what was asked, {type_}",
                "share",
                [share],
                note=f"n={len(own)}; free answer {np.mean([one.free for one in own]):.2f}",
            )
        )
    return figures


if __name__ == "__main__":
    main()
