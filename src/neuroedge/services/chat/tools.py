"""The tools of the assistant: search, read and list documents, calculate, run an engine the caller may run, and those
of the MCP servers the operator allows, whose words are a stranger's.

A tool's answer is text for the model and, where it quotes something, excerpts that may be cited.
"""

import ast
import json
import operator
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroedge.contract.chat import Tool
from neuroedge.contract.engine import EngineContext
from neuroedge.contract.errors import Forbidden, InvalidInput, NotFound
from neuroedge.engines.knowledge.search import Hit, Parts
from neuroedge.engines.knowledge.search import Input as SearchInput
from neuroedge.engines.language.chat import line
from neuroedge.services.chat.citations import TOOL
from neuroedge.services.documents import Documents
from neuroedge.services.mcp_tools import McpTool, McpTools
from neuroedge.services.run_engine import EngineRunner
from neuroedge.stores.ids import new_id

MAX_RESULT_CHARS: Final = 6000
MAX_DESCRIPTION_CHARS: Final = 600
_PASSAGES: Final = 8
_DOCUMENTS: Final = 50
_LONGEST_FORMULA: Final = 200
_BIGGEST_EXPONENT: Final = 100
_OPERATIONS: Final[Mapping[type[ast.AST], Callable[..., float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a tool gives back."""

    text: str
    excerpts: Sequence[Hit] = field(default=())


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="ignore")


class SearchArguments(_Arguments):
    """What to look for."""

    query: str = Field(min_length=1, max_length=2000, description="What to look for, in plain words.")


class ReadArguments(_Arguments):
    """Which part of which document."""

    document_id: UUID = Field(description="Id of the document, as list_documents or search gives it.")
    after: int = Field(default=-1, ge=-1, description="Go on after this passage; -1: from the beginning.")


class ListArguments(_Arguments):
    """Nothing to choose."""


class CalculateArguments(_Arguments):
    """A formula."""

    formula: str = Field(
        min_length=1, max_length=_LONGEST_FORMULA, description="Numbers with + - * / // % ** and parentheses."
    )


class EngineArguments(_Arguments):
    """An engine with its input."""

    engine: str = Field(max_length=100, description="Name of the engine.")
    payload: dict[str, Any] = Field(description="Its input.")


Run = Callable[[Any], Awaitable[Returned]]


class Toolbox:
    """Tools under one caller's rights."""

    def __init__(
        self,
        *,
        ctx: EngineContext,
        runner: EngineRunner,
        documents: Documents,
        engines: Sequence[str],
        top_k: int,
        mcp: McpTools | None = None,
        foreign: Sequence[McpTool] = (),
    ) -> None:
        """`foreign`: tools of `mcp` the caller may use."""
        self._ctx = ctx
        self._mcp = mcp
        self._foreign = {tool.function: tool for tool in foreign if not tool.signs}
        self._runner = runner
        self._documents = documents
        self._top_k = top_k
        may = ctx.principal
        self._engines = [
            engine
            for engine in runner.registry
            if engine.name in engines and may.may(engine.permission) and may.may_run(engine.name)
        ]
        self._tools: dict[str, tuple[str, type[_Arguments], Run]] = {
            "search": ("Search memories, documents and recordings.", SearchArguments, self._search),
            "list_documents": ("List the documents there are.", ListArguments, self._list),
            "read_document": ("Read the passages of a document in order.", ReadArguments, self._read),
            "calculate": ("Calculate a formula exactly.", CalculateArguments, self._calculate),
        }
        if self._engines:
            told = "; ".join(f"{engine.name}: {engine.title}" for engine in self._engines)
            self._tools["run_engine"] = (f"Run an engine. {told}.", EngineArguments, self._engine)

    @property
    def tools(self) -> list[Tool]:
        """As a model is told of them."""
        return [
            Tool(name=name, description=about, parameters=arguments.model_json_schema())
            for name, (about, arguments, _) in self._tools.items()
        ] + [
            Tool(name=name, description=tool.description[:MAX_DESCRIPTION_CHARS], parameters=tool.input_schema)
            for name, tool in self._foreign.items()
        ]

    async def run(self, name: str, arguments: Mapping[str, Any]) -> Returned:
        """What a tool returns. Raises NotFound for an unknown one, InvalidInput for wrong arguments, its own errors."""
        if name in self._foreign:
            return await self._called(self._foreign[name], arguments)
        if name not in self._tools:
            raise NotFound(f"there is no tool {name!r}", hint=f"tools: {', '.join(self._tools)}")
        _, kind, run = self._tools[name]
        try:
            checked = kind.model_validate(dict(arguments))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidInput(f"wrong arguments for {name}: {wrong}") from error
        returned = await run(checked)
        return Returned(text=returned.text[:MAX_RESULT_CHARS], excerpts=returned.excerpts)

    async def _called(self, tool: McpTool, arguments: Mapping[str, Any]) -> Returned:
        assert self._mcp is not None
        answer = await self._mcp.call(
            self._ctx.principal, tool.server, tool.name, arguments, request_id=self._ctx.request_id
        )
        if answer.failed:
            raise InvalidInput(f"{tool.function} failed: {answer.text[:MAX_DESCRIPTION_CHARS]}")
        return self._told(tool.function, answer.text, suspicious=answer.signs)

    async def _search(self, asked: SearchArguments) -> Returned:
        found: Any = await self._ctx.call("search", SearchInput(query=asked.query, top_k=self._top_k, rerank=True))
        told = "\n".join(_line(hit) for hit in found.hits)
        return Returned(text=told or "nothing was found", excerpts=found.hits)

    async def _list(self, _: ListArguments) -> Returned:
        found = await self._documents.list(self._ctx.principal, limit=_DOCUMENTS)
        told = "\n".join(f"{each.id}: {each.described.title} ({each.status})" for each in found)
        return self._told("list_documents", told or "there are no documents")

    async def _read(self, asked: ReadArguments) -> Returned:
        found = await self._documents.chunks(self._ctx.principal, asked.document_id, limit=_PASSAGES, after=asked.after)
        hits = [
            Hit(
                id=row.id,
                content=row.content,
                score=0.0,
                parts=Parts(dense=None, keyword=None),
                title=row.title,
                tags=row.tags,
                metadata=row.metadata,
                memory_type=row.memory_type,
                recording_id=row.recording_id,
                document_id=row.document_id,
                position=row.position,
                created_at=row.created_at,
            )
            for row in found
        ]
        more = f"\n(more follows: after={found[-1].position})" if len(found) == _PASSAGES else ""
        return Returned(text="\n".join(map(line, hits)) + more if hits else "nothing follows", excerpts=hits)

    async def _calculate(self, asked: CalculateArguments) -> Returned:
        return self._told("calculate", f"{asked.formula} = {calculated(asked.formula)}")

    async def _engine(self, asked: EngineArguments) -> Returned:
        if asked.engine not in [engine.name for engine in self._engines]:
            raise Forbidden(f"the assistant may not run {asked.engine!r} for you")
        answer = await self._runner.run(
            asked.engine, asked.payload, principal=self._ctx.principal, request_id=self._ctx.request_id
        )
        return self._told(asked.engine, json.dumps(answer.model_dump(mode="json"), ensure_ascii=False))

    def _told(self, name: str, text: str, *, suspicious: Sequence[str] = ()) -> Returned:
        hit = Hit(
            id=new_id(),
            content=text[:MAX_RESULT_CHARS],
            score=0.0,
            parts=Parts(dense=None, keyword=None),
            title=name,
            tags=[],
            metadata={"suspicious": list(suspicious)} if suspicious else {},
            memory_type=TOOL,
            recording_id=None,
            created_at=self._ctx.clock.now(),
        )
        return Returned(text=text[:MAX_RESULT_CHARS], excerpts=[hit])


def _line(hit: Hit) -> str:
    where = f" [document {hit.document_id}]" if hit.document_id else ""
    return f"{line(hit)}{where}"


def calculated(formula: str) -> str:
    """The value of an arithmetic formula, written short. Raises InvalidInput."""
    try:
        value = _value(ast.parse(formula.replace(",", "").strip(), mode="eval").body)
        return f"{value:.12g}" if isinstance(value, float) else str(value)
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError, MemoryError) as error:
        raise InvalidInput(
            f"{formula!r} cannot be calculated", hint="numbers, + - * / // % ** and parentheses"
        ) from error


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        base, exponent = _value(node.left), _value(node.right)
        if abs(exponent) > _BIGGEST_EXPONENT or abs(base) > 10**9:
            raise ValueError("too large")
        return float(base**exponent) if exponent != int(exponent) or exponent < 0 else base**exponent
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.operand))
    raise ValueError("no arithmetic")
