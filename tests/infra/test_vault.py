"""Keys that wrap, seal and hash; and what is refused."""

import base64
import sys
from pathlib import Path

import pytest

from neuroedge.contract.errors import InvalidInput, SealBroken, VaultLocked
from neuroedge.infra.vault import TinkCipher, Vault, new_master_key

PLACE = "tenant_keys/one"


@pytest.fixture(scope="module")
def vault() -> Vault:
    """With a fresh master key."""
    return Vault(new_master_key())


@pytest.fixture
def cipher(vault: Vault) -> TinkCipher:
    """Of a fresh organisation."""
    return vault.cipher(vault.new(PLACE), PLACE)


@pytest.mark.parametrize("value", ["", "Grüße, 世界", None, 0, [1, 2.5, True], {"a": {"b": [None]}}, "x" * 1_000_000])
def test_what_is_sealed_is_opened_again(cipher: TinkCipher, value: object) -> None:
    """Any JSON value; two seals of it look different and show nothing."""
    first, second = cipher.seal(value, "p"), cipher.seal(value, "p")
    assert cipher.open(first, "p") == cipher.open(second, "p") == value
    assert first != second
    assert b"xxxx" not in first
    assert "Grüße".encode() not in first


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\ud800", "zero\x00", {"x": object()}, b"bytes", {1j: 2}]
)
def test_what_json_cannot_hold_is_refused(cipher: TinkCipher, value: object) -> None:
    """A clear error, not a value that could not be read back."""
    with pytest.raises(InvalidInput):
        cipher.seal(value, "p")


def test_a_seal_moved_changed_or_cut_does_not_open(cipher: TinkCipher) -> None:
    """Elsewhere, with any byte changed, shortened, empty."""
    sealed = cipher.seal("text", "memories/1")
    with pytest.raises(SealBroken, match="memories/2"):
        cipher.open(sealed, "memories/2")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealBroken):
            cipher.open(bytes(changed), "memories/1")
    for cut in (b"", sealed[:4], sealed[:-1], sealed + b"\0"):
        with pytest.raises(SealBroken):
            cipher.open(cut, "memories/1")


def test_organisations_cannot_open_each_others_seals_nor_compare_hashes(vault: Vault) -> None:
    """Each has keys of its own."""
    one, other = (vault.cipher(vault.new(PLACE), PLACE) for _ in range(2))
    with pytest.raises(SealBroken):
        other.open(one.seal("text", "p"), "p")
    assert one.blind("apple") != other.blind("apple")


def test_the_blind_hash_is_stable_and_fits_a_bigint(vault: Vault) -> None:
    """Equal in every process that has the keys, 63 bits, different for different words."""
    wrapped = vault.new(PLACE)
    one, again = vault.cipher(wrapped, PLACE), vault.cipher(wrapped, PLACE)
    hashes = [one.blind(f"word {n}") for n in range(5000)]
    assert hashes == [again.blind(f"word {n}") for n in range(5000)]
    assert all(0 <= value < 2**63 for value in hashes)
    assert len(set(hashes)) == 5000
    assert max(hashes) > 2**62


@pytest.mark.parametrize("text", ["meta:\ud800=1", "\udfff" * 10_000])
def test_half_a_surrogate_pair_has_no_hash(cipher: TinkCipher, text: str) -> None:
    """It is no text: refused as the caller's error, short or long."""
    with pytest.raises(InvalidInput, match="surrogate"):
        cipher.blind(text)


def test_a_content_that_was_hashed_does_not_stay_in_memory(cipher: TinkCipher) -> None:
    """Words are remembered, since they return; a content would keep its open text, and the memory it takes."""
    content = "a sentence that was remembered " * 40
    held = sys.getrefcount(content)
    assert cipher.blind(content) == cipher.blind(content)
    assert sys.getrefcount(content) == held


def test_rotation_keeps_old_seals_readable_until_the_older_key_is_retired(vault: Vault) -> None:
    """A process that knows the new key before it is used reads what others seal with it; hashes never change."""
    wrapped = vault.new(PLACE)
    before = vault.cipher(wrapped, PLACE)
    added = vault.add(wrapped, PLACE)
    knows_both = vault.cipher(added, PLACE)
    promoted = vault.promote(added, PLACE)
    seals_anew = vault.cipher(promoted, PLACE)
    old, new = knows_both.seal("old", "p"), seals_anew.seal("new", "p")
    assert before.open(old, "p") == "old"  # added, not used yet
    assert knows_both.open(new, "p") == "new"
    assert seals_anew.open(old, "p") == "old"
    with pytest.raises(SealBroken):
        before.open(new, "p")
    retired = vault.cipher(vault.retire(promoted, PLACE), PLACE)
    assert retired.open(new, "p") == "new"
    with pytest.raises(SealBroken):
        retired.open(old, "p")
    assert retired.blind("apple") == before.blind("apple")


def test_wrapped_keys_open_with_their_master_key_in_their_place_alone(vault: Vault) -> None:
    """Another master key, another organisation's place, damaged bytes: locked, with what to do."""
    wrapped = vault.new(PLACE)
    for other, keys, place in (
        (Vault(new_master_key()), wrapped, PLACE),
        (vault, wrapped, "tenant_keys/two"),
        (vault, wrapped[:-1], PLACE),
        (vault, b"", PLACE),
    ):
        with pytest.raises(VaultLocked) as caught:
            other.cipher(keys, place)
        assert "NEUROEDGE_MASTER_KEY" in (caught.value.hint or "")


def test_a_former_master_key_unwraps_and_rewrapping_makes_it_needless() -> None:
    """The way from one master key to the next."""
    old, new = new_master_key(), new_master_key()
    wrapped = Vault(old).new(PLACE)
    sealed = Vault(old).cipher(wrapped, PLACE).seal("text", "p")
    both = Vault(new, former=[new_master_key(), old])
    assert both.cipher(wrapped, PLACE).open(sealed, "p") == "text"
    assert Vault(new).cipher(both.rewrap(wrapped, PLACE), PLACE).open(sealed, "p") == "text"


@pytest.mark.parametrize(
    "master",
    [
        "",
        "secret",
        "ä" * 44,
        base64.urlsafe_b64encode(bytes(range(31))).decode(),
        base64.urlsafe_b64encode(bytes(range(33))).decode(),
        "aws-kms:/arn",
    ],
)
def test_what_is_no_master_key_is_refused_without_showing_it(master: str) -> None:
    """With how to make one."""
    with pytest.raises(VaultLocked) as caught:
        Vault(master)
    assert "neuroedge keys new" in (caught.value.hint or "")
    assert len(master) < 10 or master not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "module"),
    [
        ("aws-kms://arn:aws:kms:eu-central-1:1:key/x", "awskms"),
        ("gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k", "gcpkms"),
        ("hcvault://vault.example.org:8200/transit/keys/k", "hcvault"),
    ],
)
def test_a_key_service_without_its_client_names_what_to_install(
    uri: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is an option of Tink."""
    monkeypatch.setitem(sys.modules, f"tink.integration.{module}", None)
    monkeypatch.delattr(f"tink.integration.{module}", raising=False)
    with pytest.raises(VaultLocked) as caught:
        Vault(uri)
    assert "pip install" in (caught.value.hint or "")


def test_files_are_sealed_in_segments_and_bound_to_their_place(cipher: TinkCipher, tmp_path: Path) -> None:
    """Empty ones and ones of several segments; changed, cut or moved ones are refused."""
    for size in (0, 1, 1 << 20, (5 << 19) + 7):
        plain, sealed = tmp_path / "plain", tmp_path / "sealed"
        data = b"word" * (size // 4) + b"x" * (size % 4)
        plain.write_bytes(data)
        cipher.seal_file(plain, sealed, "blobs/a")
        stored = sealed.read_bytes()
        assert cipher.open_bytes(stored, "blobs/a") == data
        assert b"wordword" not in stored
        middle = len(stored) // 2
        for broken in (stored[:-1], stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]):
            with pytest.raises(SealBroken):
                cipher.open_bytes(broken, "blobs/a")
        with pytest.raises(SealBroken):
            cipher.open_bytes(stored, "blobs/b")
