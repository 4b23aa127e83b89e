"""The model pool: catalogue, budgets, devices, and sharing them with other processes."""

import asyncio
import socket
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext

import valkey.asyncio

from neuroedge.bootstrap.ending import ended
from neuroedge.contract import scope
from neuroedge.infra.accelerator import Accelerator, AcceleratorMetrics
from neuroedge.infra.breaker import Breakers
from neuroedge.infra.cache.tiered import TieredCache
from neuroedge.infra.inference_metrics import InferenceMetrics
from neuroedge.infra.telemetry import Metrics
from neuroedge.runtimes import device, memory
from neuroedge.runtimes.catalogue import Catalogue, load_catalogue
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.pool import Pool, PoolSettings
from neuroedge.settings import Settings

GPU_SHARE = 0.9
"""Part of a GPU's free memory at start that models may take; computing takes some too."""


def catalogue_of(settings: Settings) -> Catalogue:
    """The model catalogue with the operator's additions and choices."""
    return load_catalogue(
        store=settings.model_store, extra=settings.data_dir / "models.toml", overrides=settings.models
    )


async def open_pool(
    settings: Settings,
    catalogue: Catalogue,
    metrics: InferenceMetrics,
    breakers: Breakers,
    cache: TieredCache,
    stack: AsyncExitStack,
) -> Pool:
    """The pool of models within the budget; the stack closes it."""
    catalogue.require_known(settings.models_pinned, setting="NEUROEDGE_MODELS_PINNED")
    catalogue.require_known(settings.models_warm, setting="NEUROEDGE_MODELS_WARM")
    catalogue.require_known(settings.exclusive_roles, setting="NEUROEDGE_EXCLUSIVE_ROLES", roles_only=True)
    memory.keep_large_blocks_apart()
    cores = device.available_cores()
    pool = Pool(
        catalogue,
        PoolSettings(
            cores=cores,
            threads=settings.model_threads or cores,
            budget_bytes=await asyncio.to_thread(_budgets, settings),
            idle_s=settings.model_idle_s,
            wait_s=settings.model_wait_s,
            pinned=settings.models_pinned,
            options={"calibration_dir": str(settings.model_store / "calibration")},
        ),
        router=Router(settings.model_device),
        metrics=metrics,
        guard=lambda name, counts: breakers.guard(name, counts=counts),
        on_pressure=lambda level: cache.shrink(),
    )
    stack.push_async_callback(pool.close)
    stack.push_async_callback(ended, asyncio.create_task(pool.watch()))
    if settings.models_warm:
        stack.push_async_callback(ended, asyncio.create_task(pool.warm_up(settings.models_warm)))
    return pool


async def share_device(
    settings: Settings, pool: Pool, client: "valkey.asyncio.Valkey", metrics: Metrics, stack: AsyncExitStack
) -> None:
    """Take part in sharing the device with other processes, and let `exclusive_roles` have it alone."""
    kind = "gpu" if any(device.split(name)[0] == "cuda" for name in pool.rooms.budget_bytes) else "ram"
    accelerator = Accelerator(
        client,
        device=settings.device_name or f"{socket.gethostname()}/{kind}",
        participant=pool,
        metrics=AcceleratorMetrics(metrics.registry),
    )
    await accelerator.open()
    stack.push_async_callback(accelerator.close)

    def alone(role: str) -> AbstractAsyncContextManager[object]:
        if role not in settings.exclusive_roles:
            return nullcontext()
        wait_s = scope.remaining_s(settings.model_wait_s)
        return accelerator.exclusive(owner=role, priority=scope.priority(), wait_s=wait_s)

    pool.share_device(alone)


def _budgets(settings: Settings) -> dict[str, int]:
    """Bytes models may take on each device."""
    budgets = {device.CPU: settings.memory_budget_bytes or memory.default_budget_bytes()}
    if settings.model_device in ("auto", "cuda"):
        budgets |= {gpu.device: int(gpu.free_bytes * GPU_SHARE) for gpu in device.gpus()}
    return budgets
