"""Federations and what moves their rounds on."""

from neuroedge.bootstrap.core import Core
from neuroedge.services.federated import Federations
from neuroedge.services.federated_rounds import FederatedRounds


def federations_of(core: Core) -> tuple[Federations, FederatedRounds]:
    """What callers use, and what the job does."""
    rounds = FederatedRounds(db=core.db, contexts=core.contexts, queue=core.queue)
    return Federations(db=core.db, contexts=core.contexts, rounds=rounds), rounds
