"""/v1/models: what models there are, which are in memory and what they take; load and unload them.

The list has the shape of OpenAI's `GET /v1/models`, with more fields; `/api/ps` is what Ollama's clients ask.
"""

import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from neuroedge.contract.models import ModelState, Priority
from neuroedge.http.auth import Operator, Reader, ThePlatform
from neuroedge.http.openai.models import RemoteModelOut, offered
from neuroedge.http.platform import Platform
from neuroedge.runtimes.catalogue import ModelEntry
from neuroedge.runtimes.slot import Slot
from neuroedge.services.llm.offers import LOCAL

router = APIRouter(tags=["models"])


class ModelOut(BaseModel):
    """A model of the catalogue, and the model in memory if it is loaded."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When its files were fetched, seconds since 1970; 0: not there.")
    owned_by: Literal["neuroedge"] = "neuroedge"
    role: str = Field(description="What it is used for.")
    runtime: str
    licence: str
    about: str
    active: bool = Field(description="Whether it serves its role here; the other models of a role are not used.")
    state: ModelState
    device: str | None = Field(default=None, description="cpu, cuda:N or mps, while it is loaded.")
    bytes: int | None = Field(
        default=None, description="Memory it takes, measured when it was loaded; the last time, if it is not now."
    )
    file_bytes: int = Field(description="Size of its files.")
    leases: int = Field(description="Calls that hold it now.")
    pinned: bool = Field(description="Never evicted.")
    priority: Priority | None = Field(default=None, description="Of its last use.")
    idle_s: float | None = Field(default=None, description="Seconds since its last use, while it is loaded.")
    loads: int = Field(description="How often it was loaded since the process started.")
    load_s: float | None = Field(default=None, description="Seconds its last load took.")
    error: str | None = Field(default=None, description="Why the last load failed, or what is missing.")


class DeviceMemoryOut(BaseModel):
    """The memory budget of a device."""

    device: str
    budget_bytes: int
    used_bytes: int
    reserved_bytes: int = Field(description="Promised to models that load now.")


class ModelList(BaseModel):
    """All models of the catalogue, then the language models of the organisation's providers."""

    object: Literal["list"] = "list"
    data: list[ModelOut | RemoteModelOut]
    memory: list[DeviceMemoryOut]
    pressure: Literal["normal", "high", "critical", "emergency"] = Field(
        description="Used part of the machine's memory: below 0.70, 0.85, 0.95, or above."
    )


class LoadIn(BaseModel):
    """How to load a model."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority = Field(default="normal", description="Who goes first when memory is short.")


class RunningModelOut(BaseModel):
    """A model in memory, in Ollama's words."""

    name: str
    model: str
    size: int = Field(description="Bytes of memory.")
    size_vram: int = Field(description="Bytes of GPU memory.")
    digest: str = Field(description="Changes with the weights.")
    leases: int
    idle_s: float


class RunningList(BaseModel):
    """What is in memory."""

    models: list[RunningModelOut]


@router.get("/v1/models", summary="Models, their state and memory")
async def list_models(principal: Reader, platform: ThePlatform) -> ModelList:
    """Every model of the catalogue, and what providers offer the caller's organisation."""
    rooms = platform.pool.rooms
    remote = [offer for offer in await offered(platform, principal) if offer.provider != LOCAL]
    return ModelList(
        data=[
            *(_out(platform, platform.pool.slot(entry.id)) for entry in platform.catalogue if entry.runtime != "none"),
            *map(RemoteModelOut.of, remote),
        ],
        memory=[
            DeviceMemoryOut(
                device=device,
                budget_bytes=budget,
                used_bytes=rooms.used.get(device, 0),
                reserved_bytes=rooms.reserved.get(device, 0),
            )
            for device, budget in rooms.budget_bytes.items()
        ],
        pressure=platform.pool.pressure(),
    )


@router.get("/v1/models/{model_id}", summary="One model")
async def show(model_id: str, principal: Reader, platform: ThePlatform) -> ModelOut:
    """One model of the catalogue."""
    return _out(platform, platform.pool.slot(model_id))


@router.post("/v1/models/{model_id}/load", summary="Load a model (operators)")
async def load(model_id: str, principal: Operator, platform: ThePlatform, body: LoadIn | None = None) -> ModelOut:
    """Load it now; evicts idle models when the budget is full. Answers when it is in memory."""
    slot = await platform.pool.load(model_id, priority=(body or LoadIn()).priority)
    return _out(platform, slot)


@router.post("/v1/models/{model_id}/unload", summary="Unload a model (operators)")
async def unload(model_id: str, principal: Operator, platform: ThePlatform) -> ModelOut:
    """Give its memory back to the system; waits up to 30 s for calls that hold it, then answers 409."""
    await platform.pool.unload(model_id)
    return _out(platform, platform.pool.slot(model_id))


@router.get("/api/ps", summary="Models in memory")
async def running(principal: Reader, platform: ThePlatform) -> RunningList:
    """What is loaded now, the most recently used first."""
    found = [(slot, slot.loaded) for slot in platform.pool.slots() if slot.loaded is not None]
    return RunningList(
        models=[
            RunningModelOut(
                name=slot.entry.id,
                model=slot.entry.id,
                size=loaded.bytes,
                size_vram=0 if loaded.device == "cpu" else loaded.bytes,
                digest=slot.entry.fingerprint,
                leases=loaded.leases,
                idle_s=round(time.monotonic() - loaded.last_used, 1),
            )
            for slot, loaded in sorted(found, key=lambda pair: -pair[1].last_used)
        ]
    )


def _fetched(platform: Platform, entry: ModelEntry) -> int:
    """A file that vanished meanwhile was never fetched."""
    try:
        return int(max((platform.catalogue.folder(entry) / file.name).stat().st_mtime for file in entry.file))
    except (OSError, ValueError):
        return 0


def _out(platform: Platform, slot: Slot) -> ModelOut:
    entry, loaded = slot.entry, slot.loaded
    present = platform.catalogue.present(entry)
    missing = not present and slot.state == "unloaded"
    return ModelOut(
        id=entry.id,
        created=_fetched(platform, entry) if present else 0,
        role=entry.role,
        runtime=entry.runtime,
        licence=entry.licence,
        about=entry.about,
        active=platform.catalogue.active(entry),
        state="missing" if missing else slot.state,
        device=slot.loaded_on,
        bytes=loaded.bytes if loaded else slot.measured_bytes,
        file_bytes=entry.bytes,
        leases=slot.leases,
        pinned=slot.pinned,
        priority=slot.priority,
        idle_s=round(slot.idle_for_s(), 1) if loaded else None,
        loads=slot.loads,
        load_s=round(slot.load_s, 3) if slot.load_s is not None else None,
        error=f"not pulled: run `neuroedge models pull {entry.id}`" if missing else slot.error,
    )
