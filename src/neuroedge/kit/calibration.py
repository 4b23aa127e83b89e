"""How far probabilities can be believed: temperature scaling and calibration error (Guo et al. 2017, ICML)."""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_LOWEST, _HIGHEST = 0.005, 50.0


def softmax(logits: Doubles, *, temperature: float = 1.0) -> Doubles:
    """Probabilities [n, labels]; a higher temperature makes them more alike."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    p = np.exp(scaled)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def log_loss(p: Doubles, truth: NDArray[np.int64]) -> float:
    """Mean negative log-probability (nats) of the true label: p [n, labels], truth [n]."""
    return float(-np.log(np.maximum(p[np.arange(len(truth)), truth], 1e-12)).mean())


def temperature_of(logits: Doubles, truth: NDArray[np.int64]) -> float:
    """The temperature of least log loss on held-out texts, 0.005 to 50: logits [n, labels], truth [n]."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: log_loss(softmax(logits, temperature=float(np.exp(log_t))), truth),
        bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


def top_label_error(p: Doubles, truth: NDArray[np.int64], *, bins: int = 15) -> float:
    """Expected calibration error of the most probable label, bins of equal width: p [n, labels], truth [n]."""
    best = p.max(axis=1)
    right = p.argmax(axis=1) == truth
    where = np.minimum((best * bins).astype(int), bins - 1)
    return float(sum(abs(best[where == b].mean() - right[where == b].mean()) * (where == b).mean() for b in set(where)))
