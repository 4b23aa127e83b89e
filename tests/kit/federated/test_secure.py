"""Secure aggregation: only the sum comes out, also when clients drop out; what does not fit is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from neuroedge.kit.federated import shamir
from neuroedge.kit.federated.secure import (
    Masked,
    Participant,
    Revealed,
    dequantised,
    mask,
    quantised,
    threshold_of,
    unmasked_sum,
)

NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"]
UPDATES = {name: np.random.default_rng(i).normal(size=50).astype(np.float32) for i, name in enumerate(NAMES)}


def _round(*, dropped_after_shares: set[str], dropped_before_shares: set[str], helpers: int | None = None) -> Revealed:
    everybody = {name: Participant(me=name, round_id="r") for name in NAMES}
    keys = {name: one.public for name, one in everybody.items()}
    sent = {name: everybody[name].shares(keys) for name in NAMES if name not in dropped_before_shares}
    survivors = [name for name in sent if name not in dropped_after_shares]
    masked = {name: everybody[name].masked(UPDATES[name], sent, bound=5.0, clients=len(NAMES)) for name in survivors}
    shares = {
        name: everybody[name].unmask({other: sent[other][name] for other in sent if other != name}, survivors)
        for name in survivors[:helpers]
    }
    return Revealed(round_id="r", keys=keys, senders=frozenset(sent), masked=masked, shares=shares)


@pytest.mark.parametrize(
    ("after", "before"), [(set(), set()), ({"b"}, set()), (set(), {"f"}), ({"a"}, {"d"}), ({"f"}, {"a"})]
)
def test_the_sum_of_those_who_stayed_comes_out(after: set[str], before: set[str]) -> None:
    """Whoever drops out before or after its shares were sent."""
    known = _round(dropped_after_shares=after, dropped_before_shares=before)
    total = dequantised(unmasked_sum(known), bound=5.0, clients=len(NAMES))
    truth = sum(UPDATES[name].astype(np.float64) for name in known.masked)
    assert np.abs(total - truth).max() < 8 * 5.0 / ((2**31 - 1) // 8)


def test_a_masked_update_looks_like_chance() -> None:
    """Its integers are spread evenly and the same update is masked otherwise in the next round."""
    first, second = (
        _round(dropped_after_shares=set(), dropped_before_shares=set()).masked["a"].astype(np.float64) for _ in range(2)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.6
    assert abs(np.corrcoef(first, UPDATES["a"])[0, 1]) < 0.6
    assert (first != second).all()


def test_too_few_helpers_give_nothing() -> None:
    """Below the threshold the masks stay."""
    known = _round(dropped_after_shares=set(), dropped_before_shares=set(), helpers=threshold_of(8) - 1)
    with pytest.raises(ValueError, match="are needed"):
        unmasked_sum(known)


def test_a_client_tells_one_of_both_seeds_only_and_once() -> None:
    """A server that asks again with another list of survivors gets nothing."""
    everybody = {name: Participant(me=name, round_id="r") for name in NAMES}
    keys = {name: one.public for name, one in everybody.items()}
    sent = {name: one.shares(keys) for name, one in everybody.items()}
    me = everybody["a"]
    me.masked(UPDATES["a"], sent, bound=5.0, clients=8)
    inbox = {other: sent[other]["a"] for other in NAMES if other != "a"}
    with pytest.raises(ValueError, match="too few"):
        me.unmask(inbox, ["a", "b", "c"])
    assert set(me.unmask(inbox, NAMES)) == set(NAMES)
    with pytest.raises(ValueError, match="too few"):
        me.unmask(inbox, NAMES[:6])


def test_a_share_that_was_changed_or_moved_does_not_open() -> None:
    """Shares are bound to sender, receiver and round."""
    everybody = {name: Participant(me=name, round_id="r") for name in NAMES}
    keys = {name: one.public for name, one in everybody.items()}
    sent = {name: one.shares(keys) for name, one in everybody.items()}
    me = everybody["a"]
    me.masked(UPDATES["a"], sent, bound=5.0, clients=8)
    inbox = {other: sent[other]["a"] for other in NAMES if other != "a"}
    with pytest.raises(ValueError, match="changed"):
        me.unmask({**inbox, "b": inbox["c"]}, NAMES)


def test_lists_of_keys_that_give_a_client_away_are_refused() -> None:
    """Without one's own key, with one key for several clients, with two clients."""
    one, other, third = (Participant(me=name, round_id="r") for name in "abc")
    for keys in (
        {"a": one.public, "b": other.public},
        {"b": other.public, "c": third.public, "d": Participant(me="d", round_id="r").public},
        {"a": one.public, "b": other.public, "c": other.public},
    ):
        with pytest.raises(ValueError, match="key"):
            one.shares(keys)


def test_quantising_loses_little_and_never_wraps() -> None:
    """The sum of the largest values of 500 clients is right."""
    biggest: Masked = np.zeros(2, np.uint32)
    for _ in range(500):
        biggest += quantised(np.array([9.0, -1.0], np.float32), bound=1.0, clients=500)
    assert dequantised(biggest, bound=1.0, clients=500) == pytest.approx([500.0, -500.0])


def test_masks_are_chacha20s_key_stream() -> None:
    """RFC 8439, A.1, test vector 1: key and nonce of zeros."""
    assert mask(bytes(32), 4).astype("<u4").tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_a_wrong_share_is_noticed() -> None:
    """A helper who gives another client's share makes the round fail; no wrong sum comes out."""
    known = _round(dropped_after_shares=set(), dropped_before_shares=set())
    for name in NAMES:
        lying = {**known.shares["a"], name: known.shares["a"]["c" if name == "b" else "b"]}
        with pytest.raises(ValueError, match="committed to"):
            unmasked_sum(replace(known, shares={**known.shares, "a": lying}))
    gone = _round(dropped_after_shares={"h"}, dropped_before_shares=set())
    lying = {**gone.shares["a"], "h": gone.shares["a"]["b"]}
    with pytest.raises(ValueError, match="do not give its key"):
        unmasked_sum(replace(gone, shares={**gone.shares, "a": lying}))


def test_any_threshold_of_shares_gives_the_secret_and_fewer_do_not() -> None:
    """All subsets of three of five, and of two."""
    secret = bytes(range(16))
    shares = shamir.split(secret, threshold=3, holders=5)
    for some in itertools.combinations(shares, 3):
        assert shamir.join({x: shares[x] for x in some}) == secret
    for some in itertools.combinations(shares, 2):
        assert shamir.join({x: shares[x] for x in some}) != secret


def test_shares_of_another_holder_or_secret_do_not_give_the_secret() -> None:
    """A share moved to another holder, and one of another sharing."""
    secret = bytes(range(16))
    shares = shamir.split(secret, threshold=3, holders=5)
    other = shamir.split(bytes(16), threshold=3, holders=5)
    assert shamir.join({1: shares[1], 2: shares[2], 4: shares[3]}) != secret
    assert shamir.join({1: shares[1], 2: shares[2], 3: other[3]}) != secret


@pytest.mark.parametrize(
    "shares", [{}, {1: bytes(17)}, {1: b"\x02" + bytes(15)}, {1: bytes(66)}, {0: b"\x02" + bytes(16)}]
)
def test_what_is_no_share_is_refused(shares: dict[int, bytes]) -> None:
    """None, another version, too short, those of version 1, a holder who is none."""
    with pytest.raises(ValueError, match="no shares"):
        shamir.join(shares)


@pytest.mark.parametrize(("threshold", "size"), [(0, 16), (6, 16), (3, 15), (3, 32)])
def test_a_secret_that_cannot_be_shared_is_refused(threshold: int, size: int) -> None:
    """No threshold, one above the holders, a secret of another size."""
    with pytest.raises(ValueError, match="16 bytes"):
        shamir.split(bytes(size), threshold=threshold, holders=5)
