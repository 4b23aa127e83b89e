"""Alignment-free goodness of pronunciation from the frames of a CTC phone model.

Cao, Fan, Svendsen & Salvi 2024, "A framework for phoneme-level pronunciation assessment using CTC" (Interspeech):
what speaks for an error is how much likelier the recording becomes when one expected phone is exchanged for another,
left out, or another is put in beside it, summed over all alignments. One forward and one backward pass give the
likelihood of every such change at once. All logarithms are natural.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

_NEVER = -1e30
"""Stands for log 0 where an infinity would make NaN of a difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How the log likelihood changes, in nats, when the expected sequence of n phones is changed at one place."""

    log_p: float
    """Of the expected sequence."""
    substituted: Doubles
    """[n, phones]: the i-th phone exchanged for another."""
    omitted: Doubles
    """[n]: the i-th phone left out."""
    added: Doubles
    """[n + 1, phones]: a phone more before the i-th, or at the end."""
    frames: Ints
    """[n, 2]: first frame of each expected phone in the best alignment, and the frame after its last."""


def changes(log_p: Doubles, expected: Ints, *, expected_log_p: Doubles | None = None) -> Changes:
    """Weigh every change of one place in `expected` [n] against the frames `log_p` [frames, phones + blank last].

    `expected_log_p` [frames, n] is the log probability of the n expected phones where that is not simply their column,
    as for phones of which several realisations are right. Raises ValueError when the frames are too few for n phones.
    """
    phones = log_p.shape[1] - 1
    own = log_p[:, expected] if expected_log_p is None else expected_log_p
    states = _states(log_p, own)
    skip = _skips(expected)
    before, after = _forward(states, skip), _backward(states, skip)
    total = float(np.logaddexp.reduce(before[-1, -2:]))
    if not total > _NEVER / 2:
        raise ValueError(f"{len(log_p)} frames are too few for {len(expected)} phones")
    n, rows = len(expected), np.arange(len(expected))
    running = np.full((n + 1, phones), _NEVER)
    exchanged, inserted = running[:-1].copy(), running.copy()
    for t, emitted in enumerate(log_p[:, :phones]):
        running = np.logaddexp(running, _entering(before[t], expected, phones)) + emitted
        last = after[t + 1]
        # Into the blank behind, or straight into the next phone where that is another one.
        leaving = np.repeat(np.logaddexp(last[2::2], np.append(last[3::2], _NEVER))[:, None], phones, axis=1)
        leaving[rows[:-1], expected[1:]] = last[2:-1:2]
        exchanged = np.logaddexp(exchanged, running[:-1] + leaving)
        leaving = np.repeat(np.logaddexp(last[0::2], np.append(last[1::2], _NEVER))[:, None], phones, axis=1)
        leaving[rows, expected] = last[:-1:2]
        inserted = np.logaddexp(inserted, running + leaving)
    return Changes(
        log_p=total,
        substituted=exchanged - total,
        omitted=_omitted(before, after, expected) - total,
        added=inserted - total,
        frames=_aligned(states, skip),
    )


def best_path(log_p: Doubles) -> list[int]:
    """The phones of the greedy CTC decoding of `log_p` [frames, phones + blank last]."""
    best = log_p.argmax(axis=1)
    kept = best[np.concatenate([[True], best[1:] != best[:-1]])] if len(best) else best
    return [int(k) for k in kept if k != log_p.shape[1] - 1]


def _states(log_p: Doubles, own: Doubles) -> Doubles:
    """[frames, 2n + 1]: blank, first phone, blank, second phone, …"""
    states = np.repeat(log_p[:, -1:], 2 * own.shape[1] + 1, axis=1)
    states[:, 1::2] = own
    return states


def _skips(expected: Ints) -> Doubles:
    """[2n + 1]: 0 where a state may be entered from two states before, `_NEVER` where not."""
    skip = np.full(2 * len(expected) + 1, _NEVER)
    skip[3::2] = np.where(expected[1:] != expected[:-1], 0.0, _NEVER)
    return skip


def _forward(states: Doubles, skip: Doubles) -> Doubles:
    """[frames + 1, states]: row t is the likelihood of the first t frames ending in each state; row 0 is the start."""
    out = np.full((len(states) + 1, states.shape[1]), _NEVER)
    out[0, 0] = 0.0
    for t, emitted in enumerate(states):
        last = out[t]
        row = last.copy()
        row[1:] = np.logaddexp(row[1:], last[:-1])
        row[2:] = np.logaddexp(row[2:], last[:-2] + skip[2:])
        out[t + 1] = np.maximum(row + emitted, _NEVER)
    return out


def _backward(states: Doubles, skip: Doubles) -> Doubles:
    """[frames + 1, states]: row t is the likelihood of the frames from t on, t being in each state."""
    out = np.full((len(states) + 1, states.shape[1]), _NEVER)
    out[-1, -1] = 0.0
    for t in range(len(states) - 1, -1, -1):
        following = out[t + 1]
        row = following.copy()
        row[:-1] = np.logaddexp(row[:-1], following[1:])
        row[:-2] = np.logaddexp(row[:-2], following[2:] + skip[2:])
        out[t] = np.maximum(row + states[t], _NEVER)
    return out


def _entering(before: Doubles, expected: Ints, phones: int) -> Doubles:
    """[n + 1, phones]: likelihood of standing before the i-th place, ready for another phone than the last."""
    blank, label = before[0::2], np.append(_NEVER, before[1::2])
    entering = np.repeat(np.logaddexp(blank, label)[:, None], phones, axis=1)
    entering[np.arange(1, len(expected) + 1), expected] = blank[1:]
    return entering


def _omitted(before: Doubles, after: Doubles, expected: Ints) -> Doubles:
    """[n]: log likelihood without the i-th phone."""
    n = len(expected)
    out = np.empty(n)
    for i in range(n):
        blank = before[:, 2 * i]
        label = before[:, 2 * i - 1] if i else np.full(len(before), _NEVER)
        if i == n - 1:
            out[i] = np.logaddexp(blank[-1], label[-1])
            continue
        if i and expected[i - 1] == expected[i + 1]:
            label = np.full(len(before), _NEVER)
        out[i] = np.logaddexp.reduce(np.logaddexp(blank, label) + after[:, 2 * i + 3])
    return out


def _aligned(states: Doubles, skip: Doubles) -> Ints:
    """First frame of each phone on the most likely path, and the frame after its last."""
    frames, width = states.shape
    score = np.full(width, -np.inf)
    score[:2] = states[0, :2]
    steps = np.zeros((frames, width), np.int8)
    for t in range(1, frames):
        choices = np.full((3, width), -np.inf)
        choices[0] = score
        choices[1, 1:] = score[:-1]
        choices[2, 2:] = score[:-2] + skip[2:]
        steps[t] = choices.argmax(axis=0)
        score = choices.max(axis=0) + states[t]
    state = width - 1 if score[-1] >= score[-2] else width - 2
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = state
        state -= int(steps[t, state])
    labels = np.arange(1, width, 2)
    return np.stack([np.searchsorted(path, labels, "left"), np.searchsorted(path, labels, "right")], axis=1)
