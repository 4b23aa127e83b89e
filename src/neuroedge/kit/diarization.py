"""Who spoke when, from speaker vectors of overlapping windows: clustering, then a hidden Markov model.

1. Average-linkage agglomerative clustering of the windows' vectors by cosine distance into rather too many clusters
   (as x-vector systems start: Sell et al. 2018, "Diarization is hard").
2. Viterbi over short frames: a state per cluster, von Mises-Fisher emissions around its mean direction, a price for
   each change of speaker. Directions are estimated anew and the search repeated, as VBx does (Landini et al. 2022,
   "Bayesian HMM clustering of x-vector sequences"), here with cosine scores in place of its PLDA model.
3. The two clusters that are likest are merged while they are as like as one voice's (kit/voice_clusters.py): the number
   of speakers falls out, whatever the length, and short stretches are judged by what they pool to, not one by one.
   What is only ever heard for a moment, or is two voices at once, is no speaker.

Each moment of the turns has one speaker. Where a second one is nearly as likely, people may be speaking at once, or the
windows hold a change of speaker: such stretches are given apart, as possible overlap (benchmarks/overlap.py measures
what they are worth).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroedge.kit.speech_overlap import Overlap, possible_overlaps
from neuroedge.kit.voice_clusters import likest_pair, not_a_voice

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]
Labels = NDArray[np.intp]
Stretch = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A stretch of one speaker; `confidence` is the mean posterior probability of that speaker in it."""

    speaker: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diarized:
    """Who spoke when, and where perhaps not alone."""

    turns: list[Turn]
    overlaps: list[Overlap]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Constants of the method, chosen on conversations spliced from single voices for the GE2E encoder."""

    window_s: float = 1.6
    hop_s: float = 0.25
    bridge_s: float = 0.4
    """Pauses up to this length lie inside a window; a turn never spans one unless the speaker stays the same."""
    frame_s: float = 0.05
    first_distance: float = 0.30
    """Mean cosine distance up to which windows join in the first clustering."""
    merge_cost_s: float = 0.39
    """Clusters merge while it costs less resultant length than this, in seconds of perfectly uniform speech, …"""
    same_cosine: float = 0.892
    """… or while their directions are as near as this: halves of one voice were at 0.895 and nearer, two voices of one
    language and sex on one telephone line at 0.888 and farther."""
    concentration: float = 160.0
    """Weight of a cosine in the log-likelihood of a second of speech."""
    change_cost: float = 3.0
    """Price of another speaker in the next frame, in nats."""
    pause_change_cost: float = 1.5
    """The same after a pause."""
    posterior_share: float = 0.25
    """Part of the evidence that counts in `confidence`: neighbouring frames share windows, so they repeat evidence."""
    min_speaker_s: float = 0.5
    """Less speech than this makes no speaker."""
    join_s: float = 0.25
    """Turns of one speaker with no longer pause than this are one turn."""
    overlap_p: float = 0.2
    """Posterior probability of a second speaker from which a moment may be overlap."""
    min_overlap_s: float = 0.2
    max_first_clusters: int = 20
    max_linked: int = 3000
    """Windows in the first clustering (its memory grows with the square); evenly chosen when there are more."""


DEFAULT = Tuning()


@dataclass(frozen=True, slots=True)
class _Frames:
    times_s: Numbers
    after_pause: NDArray[np.bool_]
    spans: Labels
    """Which span each frame lies in."""
    windows: Floats
    """Vectors of the windows [windows, dim]."""
    weights: Any
    """Sparse [frames, windows], rows of sum 1: a frame's vector is the mean of the windows around it, nearer ones
    weighing more. It is never written out: for three hours of speech that would be half a gigabyte."""
    step_s: float

    def scores(self, directions: Numbers) -> Numbers:
        scored: Numbers = self.weights @ (self.windows @ directions.T) * self.step_s
        return scored

    def sums(self, labels: Labels, count: int) -> Numbers:
        """Sum of the vectors of the frames of each label [count, dim]."""
        from scipy.sparse import csr_matrix

        members = csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(count, len(labels)))
        summed: Numbers = (members @ self.weights) @ self.windows
        return summed


def sliding_windows(spans: Sequence[Stretch], *, tuning: Tuning = DEFAULT) -> list[Stretch]:
    """Windows of `window_s` every `hop_s` over each stretch of speech, in order; shorter stretches are one window."""
    found: list[Stretch] = []
    for start, end in _bridged(spans, gap_s=tuning.bridge_s):
        last = max(start, end - tuning.window_s)
        count = int(np.ceil((last - start) / tuning.hop_s - 1e-9)) + 1
        starts = (min(start + step * tuning.hop_s, last) for step in range(count))
        found += [(at, min(end, at + tuning.window_s)) for at in starts]
    return found


def cut(samples: Floats, windows: Sequence[Stretch], *, rate_hz: int, tuning: Tuning = DEFAULT) -> list[Floats]:
    """The waveform of each window; one shorter than `window_s` is repeated to that length.

    Silence instead of repetition would pull the vectors of all short windows towards each other.
    """
    full = round(tuning.window_s * rate_hz)
    pieces = [
        samples[int(start * rate_hz) : max(int(start * rate_hz) + 1, int(end * rate_hz))] for start, end in windows
    ]
    return [np.resize(piece, full) if 0 < len(piece) < full else piece[:full] for piece in pieces]


def find_turns(
    vectors: Floats,
    windows: Sequence[Stretch],
    spans: Sequence[Stretch],
    *,
    min_speakers: int = 1,
    max_speakers: int = 8,
    tuning: Tuning = DEFAULT,
) -> list[Turn]:
    """The turns of `diarized`."""
    found = diarized(vectors, windows, spans, min_speakers=min_speakers, max_speakers=max_speakers, tuning=tuning)
    return found.turns


def diarized(
    vectors: Floats,
    windows: Sequence[Stretch],
    spans: Sequence[Stretch],
    *,
    min_speakers: int = 1,
    max_speakers: int = 8,
    tuning: Tuning = DEFAULT,
) -> Diarized:
    """Turns in order of time, one speaker at each moment of `spans`; speakers are S1, S2, … as they first speak.

    `vectors` [n, dim] L2-normalised belong to `windows` [n], made by `sliding_windows` of the same sorted `spans`.
    Fewer speakers than `min_speakers` come out when the speech is too short to tell so many apart. Raises ValueError
    when the numbers of vectors and windows differ or the limits contradict each other.
    """
    if len(vectors) != len(windows):
        raise ValueError(f"{len(vectors)} vectors for {len(windows)} windows")
    if not 1 <= min_speakers <= max_speakers:
        raise ValueError("speakers must be limited by 1 <= min_speakers <= max_speakers")
    if not windows or not spans:
        return Diarized(turns=[], overlaps=[])
    directions = _first_directions(vectors, at_least=min_speakers, tuning=tuning)
    coarse = _frames(vectors, windows, spans, step_s=tuning.hop_s)
    directions = _merge(coarse, directions, at_least=min_speakers, at_most=max_speakers, tuning=tuning)
    fine = _frames(vectors, windows, spans, step_s=tuning.frame_s)
    labels, directions = _settle(fine, directions, tuning=tuning)
    posteriors = _posteriors(fine, directions, tuning=tuning)
    names = _names(labels)
    turns = _turns(fine, spans, labels, posteriors, names, join_s=tuning.join_s)
    return Diarized(
        turns=turns,
        overlaps=possible_overlaps(
            fine.times_s,
            fine.after_pause,
            posteriors[:, sorted(names)],
            [names[label] for label in sorted(names)],
            step_s=tuning.frame_s,
            at_least_p=tuning.overlap_p,
            at_least_s=tuning.min_overlap_s,
        ),
    )


def snap_to_words(turns: Sequence[Turn], words: Sequence[Stretch], *, reach_s: float = 0.3) -> list[Turn]:
    """Move each change of speaker that cuts a word to that word's nearer edge, if no farther than `reach_s`."""
    edges = {turn: [turn.start_s, turn.end_s] for turn in turns}
    starts = np.array([start for start, _ in words])
    for before, after in pairwise(turns):
        if before.speaker == after.speaker or after.start_s - before.end_s > 1e-6 or not words:
            continue
        start, end = words[max(0, int(np.searchsorted(starts, before.end_s)) - 1)]
        edge = min((start, end), key=lambda at: abs(at - before.end_s))
        inside = start < before.end_s < end and edges[before][0] < edge < after.end_s
        if inside and abs(edge - before.end_s) <= reach_s:
            edges[before][1] = edges[after][0] = edge
    return [replace(turn, start_s=edges[turn][0], end_s=edges[turn][1]) for turn in turns]


def _bridged(spans: Sequence[Stretch], *, gap_s: float) -> list[Stretch]:
    joined: list[Stretch] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= gap_s:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _unit(vectors: Numbers) -> Numbers:
    normed: Numbers = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return normed


def _first_directions(vectors: Floats, *, at_least: int, tuning: Tuning) -> Numbers:
    """Mean directions of the first clusters, biggest first; clusters of one or two windows only when none is bigger."""
    from scipy.cluster.hierarchy import fcluster, linkage

    chosen = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), tuning.max_linked)).round().astype(int))
    linked = vectors[chosen].astype(np.float64)
    if len(linked) < 2:
        return _unit(linked)
    tree = linkage(linked, "average", metric="cosine")
    labels = fcluster(tree, tuning.first_distance, "distance")
    if len(np.unique(labels)) < at_least:
        labels = fcluster(tree, at_least, "maxclust")
    names, sizes = np.unique(labels, return_counts=True)
    order = np.argsort(-sizes, kind="stable")[: tuning.max_first_clusters]
    kept = [i for rank, i in enumerate(order) if sizes[i] >= 3 or rank < at_least]
    return _unit(np.stack([linked[labels == names[i]].mean(axis=0) for i in kept]))


def _frames(vectors: Floats, windows: Sequence[Stretch], spans: Sequence[Stretch], *, step_s: float) -> _Frames:
    counts = [max(1, round((end - start) / step_s)) for start, end in spans]
    times = [start + (np.arange(n) + 0.5) * (end - start) / n for (start, end), n in zip(spans, counts, strict=True)]
    fresh = [np.arange(n) == 0 for n in counts]
    owner = np.repeat(np.arange(len(spans)), counts)
    at = np.concatenate(times)
    return _Frames(at, np.concatenate(fresh), owner, vectors, _nearness(windows, at), step_s)


def _nearness(windows: Sequence[Stretch], at_s: Numbers) -> Any:
    """Weights of the windows that cover each moment, a triangle over the window, of sum 1 [moments, windows]."""
    from scipy.sparse import csr_matrix

    starts, ends = np.array(windows).T
    last = np.maximum(np.searchsorted(starts, at_s, "right"), 1)
    first = np.minimum(np.searchsorted(ends, at_s, "left"), last - 1)
    rows, columns, values = [], [], []
    for step in range(int((last - first).max())):
        window = np.minimum(first + step, len(windows) - 1)
        half = (ends[window] - starts[window]) / 2
        nearness = np.maximum(1 - np.abs(at_s - starts[window] - half) / half, 1e-3)
        covers = first + step < last
        rows.append(np.flatnonzero(covers).astype(np.int32))
        columns.append(window[covers].astype(np.int32))
        values.append(nearness[covers].astype(np.float32))
    cells = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    weights = csr_matrix(cells, shape=(len(at_s), len(windows)))
    weights.data /= np.repeat(np.asarray(weights.sum(axis=1)).ravel(), np.diff(weights.indptr))
    return weights


def _merge(frames: _Frames, directions: Numbers, *, at_least: int, at_most: int, tuning: Tuning) -> Numbers:
    """Join clusters until no two are as like as one voice's, within the limits on their number; drop mere sounds."""
    while True:
        labels, directions = _settle(frames, directions, tuning=tuning, keep=at_least)
        count = len(directions)
        if count <= at_least:
            return directions
        sums = frames.sums(labels, count) * frames.step_s
        i, j, doubt = likest_pair(sums, cost=tuning.merge_cost_s, cosine=tuning.same_cosine)
        if doubt < 1 or count > at_most:
            directions = np.vstack([np.delete(directions, [i, j], axis=0), _unit(sums[i] + sums[j])])
            continue
        sound = not_a_voice(directions, labels, frame_s=frames.step_s)
        if sound is None:
            return directions
        directions = np.delete(directions, sound, axis=0)


def _settle(frames: _Frames, directions: Numbers, *, tuning: Tuning, keep: int = 1) -> tuple[Labels, Numbers]:
    """Search and re-estimate in turn until nothing moves; speakers with too little speech vanish, down to `keep`."""
    for _ in range(10):
        labels = _viterbi(frames, directions, tuning=tuning)
        sizes = np.bincount(labels, minlength=len(directions))
        rank = np.argsort(np.argsort(-sizes, kind="stable"))
        heard = (sizes > 0) & ((sizes * frames.step_s >= tuning.min_speaker_s) | (rank < keep))
        heard[sizes.argmax()] = True
        means = _unit(frames.sums(labels, len(directions))[heard])
        if heard.all() and np.allclose(means, directions, atol=1e-9):
            break
        directions = means
    return _viterbi(frames, directions, tuning=tuning), directions


def _viterbi(frames: _Frames, directions: Numbers, *, tuning: Tuning) -> Labels:
    """The likeliest speaker of each frame [frames]."""
    scores = frames.scores(directions) * tuning.concentration
    prices = np.where(frames.after_pause, tuning.pause_change_cost, tuning.change_cost)
    came_from = np.zeros(scores.shape, np.int16)  # of hours there are hundreds of thousands
    same = np.arange(scores.shape[1])
    best = scores[0].copy()
    for t in range(1, len(scores)):
        rival = int(best.argmax())
        changed = best[rival] - prices[t]
        came_from[t] = np.where(best >= changed, same, rival)
        best = np.maximum(best, changed) + scores[t]
    labels = np.zeros(len(scores), np.intp)
    labels[-1] = best.argmax()
    for t in range(len(scores) - 1, 0, -1):
        labels[t - 1] = came_from[t, labels[t]]
    return labels


def _posteriors(frames: _Frames, directions: Numbers, *, tuning: Tuning) -> Numbers:
    """Probability of each speaker in each frame, by the forward-backward algorithm [frames, speakers]."""
    scores = frames.scores(directions) * tuning.concentration * tuning.posterior_share
    likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
    change = np.exp(-np.where(frames.after_pause, tuning.pause_change_cost, tuning.change_cost))
    change /= 1 + change * (len(directions) - 1)
    stay = 1 - change * len(directions)
    forward, backward = np.empty_like(scores), np.ones_like(scores)
    forward[0] = likelihoods[0] / likelihoods[0].sum()
    for t in range(1, len(scores)):
        joint = (stay[t] * forward[t - 1] + change[t]) * likelihoods[t]
        forward[t] = joint / joint.sum()
    for t in range(len(scores) - 2, -1, -1):
        ahead = backward[t + 1] * likelihoods[t + 1]
        ahead = stay[t + 1] * ahead + change[t + 1] * ahead.sum()
        backward[t] = ahead / ahead.sum()
    both = forward * backward
    posteriors: Numbers = both / both.sum(axis=1, keepdims=True)
    return posteriors


def _names(labels: Labels) -> dict[int, str]:
    """S1, S2, … in the order in which they first speak."""
    return {int(label): f"S{number}" for number, label in enumerate(dict.fromkeys(labels.tolist()), 1)}


def _turns(
    frames: _Frames,
    spans: Sequence[Stretch],
    labels: Labels,
    posteriors: Numbers,
    names: dict[int, str],
    *,
    join_s: float,
) -> list[Turn]:
    breaks = np.flatnonzero((np.diff(labels) != 0) | frames.after_pause[1:]) + 1
    turns: list[Turn] = []
    for first, stop in pairwise([0, *breaks.tolist(), len(labels)]):
        speaker = names[int(labels[first])]
        start, end = _edges(frames, spans, first, stop)
        confidence = float(posteriors[first:stop, labels[first]].mean())
        turns.append(Turn(speaker=speaker, start_s=start, end_s=end, confidence=confidence))
    return _joined(turns, join_s=join_s)


def _edges(frames: _Frames, spans: Sequence[Stretch], first: int, stop: int) -> Stretch:
    """Start and end of frames [first, stop) of one span: the span's own, or midway between two frames."""
    start, end = spans[int(frames.spans[first])]
    if not frames.after_pause[first]:
        start = float(frames.times_s[first - 1 : first + 1].mean())
    if stop < len(frames.times_s) and not frames.after_pause[stop]:
        end = float(frames.times_s[stop - 1 : stop + 1].mean())
    return start, end


def _joined(turns: Sequence[Turn], *, join_s: float) -> list[Turn]:
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if before is None or before.speaker != turn.speaker or turn.start_s - before.end_s > join_s:
            joined.append(turn)
            continue
        share = (turn.end_s - turn.start_s) / max(1e-9, turn.end_s - turn.start_s + before.end_s - before.start_s)
        confidence = before.confidence + share * (turn.confidence - before.confidence)
        joined[-1] = replace(before, end_s=turn.end_s, confidence=confidence)
    return joined
