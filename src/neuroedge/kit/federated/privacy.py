"""Epsilon of noisy rounds, by the accountants of dp-accounting.

One client's whole contribution is what is protected ("zero-out" adjacency: its update against zeros, the number of
clients being public), as DP-FedAvg with a public count gives it.
"""

import math
from typing import Final, Literal

Accountant = Literal["pld", "rdp"]
MIN_NOISE_MULTIPLIER: Final = 0.3
_MIN_FOR_PLD: Final = 0.2
"""Below it a privacy loss distribution has too many values to be composed in reasonable time."""


def epsilon(
    *, noise_multiplier: float, rounds: int, delta: float, sampling: float = 1.0, accountant: Accountant = "rdp"
) -> float:
    """Epsilon after so many rounds of Gaussian noise; `sampling` is the chance with which each client, independently,
    took part in a round (Poisson sampling; 1: no amplification is claimed). 0 rounds: 0. Raises ValueError for little
    noise in many rounds with "pld", which is the tighter one.
    """
    from dp_accounting import NeighboringRelation, dp_event
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    if rounds == 0:
        return 0.0
    if accountant == "pld" and noise_multiplier / math.sqrt(rounds) < _MIN_FOR_PLD:
        raise ValueError("so little noise in so many rounds is counted by the accountant 'rdp' only")
    relation = NeighboringRelation.REPLACE_SPECIAL if sampling == 1 else NeighboringRelation.ADD_OR_REMOVE_ONE
    book = PLDAccountant(relation) if accountant == "pld" else RdpAccountant(neighboring_relation=relation)
    event: dp_event.DpEvent = dp_event.GaussianDpEvent(noise_multiplier)
    if sampling < 1:
        event = dp_event.PoissonSampledDpEvent(sampling, event)
    return float(book.compose(event, rounds).get_epsilon(delta))
