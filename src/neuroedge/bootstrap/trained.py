"""Models that organisations train: what runs them, and what keeps them."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from neuroedge.contract.principal import Principal
from neuroedge.contract.trained import OnnxGraphs, TrainedModels
from neuroedge.infra.blobs import TenantBlobs
from neuroedge.runtimes.tabular import TabularSessions
from neuroedge.services.trained import TenantTrainedModels
from neuroedge.stores.postgres import Database


def graphs_of(stack: AsyncExitStack) -> TabularSessions:
    """One for the process; the stack closes its sessions."""
    sessions = TabularSessions()
    stack.push_async_callback(sessions.aclose)
    return sessions


def trained_port(db: Database, graphs: OnnxGraphs) -> Callable[[Principal, TenantBlobs, str], TrainedModels]:
    """Makes the port of a caller."""
    return lambda principal, blobs, request_id: TenantTrainedModels(
        db=db, principal=principal, blobs=blobs, graphs=graphs, request_id=request_id
    )
