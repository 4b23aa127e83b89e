"""Providers: the operator's from a file, an organisation's own from the database, keys shown to nobody."""

import asyncio
import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from neuroedge.contract.errors import Conflict, InvalidInput, NotFound, Unavailable
from neuroedge.contract.principal import Principal
from neuroedge.services.accounts import PROBE
from neuroedge.services.llm.hosts import Hosts
from neuroedge.services.llm.offers import LOCAL, Offer, Preferences
from neuroedge.services.llm.provider_file import read_providers
from neuroedge.services.llm.provider_settings import ProviderSettings
from neuroedge.services.llm.providers import Providers
from neuroedge.stores.ids import new_id
from neuroedge.stores.postgres import Database
from tests.stores.conftest import new_principal

KEY = "sk-proj-very-secret-0123456789abcdef-WXYZ"
ENVIRONMENT = {"OPENAI_API_KEY": KEY, "OTHER_KEY": f" {KEY}-2\n"}


def read(folder: Path, text: str) -> list[Offer]:
    """What a providers.toml of this text offers."""
    path = folder / "providers.toml"
    path.write_text(text)
    return read_providers(path, environment=ENVIRONMENT)


def test_without_a_file_the_operator_offers_nothing(tmp_path: Path) -> None:
    """And an empty one is as good as none."""
    assert read_providers(tmp_path / "providers.toml") == []
    assert read(tmp_path, "") == []


def test_a_kind_and_a_key_are_enough(tmp_path: Path) -> None:
    """Address, wire, usual models, their context and price are known."""
    offers = read(tmp_path, '[[provider]]\nname = "openai"\nkind = "openai"\n')
    assert len(offers) > 1
    assert {(o.provider, o.wire, o.base_url, o.api_key) for o in offers} == {
        ("openai", "openai", "https://api.openai.com/v1", KEY)
    }
    assert all(o.price and o.context_tokens >= 100_000 and o.images and not o.private and not o.own for o in offers)


def test_everything_can_be_said_of_a_server_of_the_operators(tmp_path: Path) -> None:
    """A model of one's own with its price; the key from a file."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    (offer,) = read(
        tmp_path,
        f"""
        [[provider]]
        name = "gpu-room"
        wire = "openai"
        base_url = "http://10.0.0.7:8000/v1/"
        api_key_file = "{tmp_path / "key"}"
        private = true
        concurrency = 3
        first_token_s = 5
        idle_s = 2.5
        [[provider.model]]
        name = "Qwen/Qwen3-32B"
        context_tokens = 32768
        max_output_tokens = 4096
        quality = 7
        query_types = ["code", "summary"]
        tools = false
        images = true
        price = {{ prompt_usd_per_million = "0.1", completion_usd_per_million = 0.3, as_of = 2026-04-01 }}
        """,
    )
    assert offer == Offer(
        provider="gpu-room",
        wire="openai",
        model="Qwen/Qwen3-32B",
        base_url="http://10.0.0.7:8000/v1",
        api_key=KEY,
        private=True,
        context_tokens=32768,
        max_output_tokens=4096,
        price=dataclasses.replace(
            offer.price or pytest.fail("no price"),
            prompt_usd_per_million=Decimal("0.1"),
            completion_usd_per_million=Decimal("0.3"),
            source="as configured",
            as_of="2026-04-01",
        ),
        quality=7,
        query_types=("code", "summary"),
        concurrency=3,
        first_token_s=5,
        idle_s=2.5,
        tools=False,
        images=True,
    )
    assert KEY not in repr(offer)


def test_a_vendors_kind_at_another_address_has_none_of_the_vendors_prices(tmp_path: Path) -> None:
    """A proxy or a like server bills as it likes; nor is the vendor's key of the environment sent there unasked."""
    text = '[[provider]]\nname = "proxy"\nkind = "openai"\nbase_url = "https://proxy.example.org/v1"\n'
    path = tmp_path / "providers.toml"
    path.write_text(text)
    offers = read_providers(path, environment={})
    assert {o.price for o in offers} == {None}
    assert {o.api_key for o in offers} == {None}


def test_a_key_in_the_file_itself_works_with_a_warning_that_does_not_hold_it(tmp_path: Path) -> None:
    """The operator is told of the better ways."""
    with structlog.testing.capture_logs() as lines:
        offers = read(tmp_path, f'[[provider]]\nname = "a"\nkind = "anthropic"\napi_key = "{KEY}"\n')
    assert offers[0].api_key == KEY
    assert [line["event"] for line in lines] == ["provider_key_in_file"]
    assert KEY not in str(lines)


BAD = {
    'provider = "x"': "provider",
    "[[provider]": "line 1",
    '[[provider]]\nname = "a"\nkind = "openai"\napi_key = "sk-proj': "end of document",
    "[[providers]]": "providers: Extra inputs",
    '[[provider]]\nkind = "openai"': "provider 1.name: Field required",
    '[[provider]]\nname = "local"\nkind = "openai"': "provider 1 (local).name",
    '[[provider]]\nname = "A b"\nkind = "openai"': "provider 1 (A b).name",
    '[[provider]]\nname = "a"': "give a kind, or wire and base_url",
    '[[provider]]\nname = "a"\nkind = "nobody"': "provider 1 (a).kind",
    '[[provider]]\nname = "a"\nkind = "openai"\nwire = "anthropic"': "does not speak",
    '[[provider]]\nname = "a"\nkind = "openai"\nbase-url = "x"': "base-url: Extra inputs",
    '[[provider]]\nname = "a"\nwire = "openai"\nbase_url = "https://x.org"': "name its models",
    '[[provider]]\nname = "a"\nkind = "openai"\nbase_url = "ftp://x.org"': "base_url",
    '[[provider]]\nname = "a"\nkind = "openai"\nbase_url = "https://u:p@x.org"': "a key belongs into api_key",
    '[[provider]]\nname = "a"\nkind = "openai"\nbase_url = "https://[::1"': "base_url",
    '[[provider]]\nname = "a"\nkind = "openai"\nconcurrency = 0': "provider 1 (a).concurrency",
    '[[provider]]\nname = "a"\nkind = "openai"\nidle_s = nan': "provider 1 (a).idle_s",
    '[[provider]]\nname = "a"\nkind = "openai"\nidle_s = inf': "provider 1 (a).idle_s",
    '[[provider]]\nname = "a"\nkind = "openai"\napi_key_env = "NOT_THERE"': "NOT_THERE is not set",
    '[[provider]]\nname = "a"\nkind = "anthropic"': "ANTHROPIC_API_KEY is not set",
    '[[provider]]\nname = "a"\nkind = "openai"\napi_key_file = "/no/such/file"': "cannot be read",
    '[[provider]]\nname = "a"\nkind = "openai"\napi_key_env = "X"\napi_key = "y"': "give one of",
    '[[provider]]\nname = "a"\nkind = "openai"\n[[provider.model]]\nname = "m"\n[[provider.model]]\nname = "m"'
    "": "twice",
    '[[provider]]\nname = "a"\nkind = "openai"\n[[provider.model]]\nname = ""': "provider 1 (a).models.1.name",
    '[[provider]]\nname = "a"\nkind = "openai"\n[[provider.model]]\nname = "m"\nprice = {prompt_usd_per_million = -1,'
    " completion_usd_per_million = 1}": "models.1.price.prompt_usd_per_million",
    '[[provider]]\nname = "a"\nkind = "openai"\n[[provider]]\nname = "a"\nkind = "openai"': "same name",
}


@pytest.mark.parametrize(("text", "told"), BAD.items(), ids=range(len(BAD)))
def test_a_bad_file_is_refused_with_the_place_and_without_values(tmp_path: Path, text: str, told: str) -> None:
    """What stands there may be a key."""
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, text)
    assert told in refused.value.detail
    assert "providers.toml" in refused.value.detail
    assert "sk-proj" not in f"{refused.value.detail} {refused.value.__cause__}"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"#" * (2 << 20)])
def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path, raw: bytes) -> None:
    """Before it is parsed."""
    path = tmp_path / "providers.toml"
    path.write_bytes(raw)
    with pytest.raises(InvalidInput, match=r"providers\.toml"):
        read_providers(path)


ADDRESSES = {
    "public.example.org": ["93.184.215.14"],
    "inside.example.org": ["10.0.0.5"],
    "both.example.org": ["93.184.215.14", "127.0.0.1"],
    "mapped.example.org": ["::ffff:192.168.1.1"],
    "127.0.0.1": ["127.0.0.1"],
    "169.254.169.254": ["169.254.169.254"],
    "gpu.internal": ["10.0.0.7"],
}


async def look_up(host: str, port: int) -> Sequence[str]:
    """A resolver that knows a few names."""
    if host not in ADDRESSES:
        raise OSError("unknown")
    return ADDRESSES[host]


HOSTS = Hosts(own=["gpu.internal:8000", "plain.internal"], resolver=look_up)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://public.example.org/v1", False),
        ("http://gpu.internal:8000/v1", False),
        ("http://gpu.internal:8000/v1", True),
        ("https://plain.internal", True),
    ],
)
async def test_public_addresses_and_the_operators_hosts_may_be_asked(url: str, private: bool) -> None:
    """The latter also without encryption, and as private ones."""
    await HOSTS.check(url, private=private)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://public.example.org/v1", False),
        ("https://inside.example.org", False),
        ("https://both.example.org", False),
        ("https://mapped.example.org", False),
        ("https://127.0.0.1", False),
        ("https://169.254.169.254/latest", False),
        ("https://nowhere.example.org", False),
        ("https://gpu.internal:9000", False),
        ("https://gpu.internal", False),
        ("https://plain.internal:8443", False),
        ("https://public.example.org", True),
    ],
)
async def test_addresses_only_this_server_can_reach_are_refused(url: str, private: bool) -> None:
    """However they are written; and nothing outside is private."""
    with pytest.raises(InvalidInput):
        await HOSTS.check(url, private=private)


@pytest.mark.anyio
async def test_a_connection_is_checked_by_what_its_name_resolves_to_now() -> None:
    """DNS rebinding: public when the provider was set up, private when it is asked."""
    found = iter([["93.184.216.34"], ["93.184.216.34", "2606:4700::1111"], ["10.0.0.7"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(found)

    hosts = Hosts(own=["gpu.internal:8000"], resolver=rebinding)
    await hosts.check("https://shifty.example.org/v1", private=False)
    assert await hosts.addresses("https", "shifty.example.org", None) == ["93.184.216.34", "2606:4700::1111"]
    with pytest.raises(InvalidInput, match="not on the public internet"):
        await hosts.addresses("https", "shifty.example.org", None)
    assert await hosts.addresses("http", "gpu.internal", 8000) == ["gpu.internal"]


OPERATORS = [Offer(provider="house", wire="openai", model="big"), Offer(provider="house", wire="openai", model="small")]
HERE = [Offer(provider=LOCAL, wire="local", model="tiny", private=True)]


def make_providers(db: Database) -> Providers:
    """Of an installation with a model of its own and an operator's provider."""
    return Providers(db=db, operators=OPERATORS, local=lambda: HERE, hosts=HOSTS)


def settings(**change: Any) -> ProviderSettings:
    """A server on the public internet."""
    facts = {"wire": "openai", "base_url": "https://public.example.org/v1", "models": [{"name": "m"}, {"name": "n"}]}
    return ProviderSettings.model_validate({**facts, **change})


async def set_up(providers: Providers, caller: Principal, name: str = "mine", **change: Any) -> Any:
    """A provider with a key."""
    return await providers.create(caller, name=name, settings=settings(**change), api_key=KEY, request_id="r")


@pytest.mark.anyio
async def test_an_organisations_own_is_offered_to_it_alone_at_once(db: Database) -> None:
    """With its key, after this machine's models and before the operator's."""
    providers, one, other = make_providers(db), await new_principal(db), await new_principal(db)
    assert [offer.id for offer in await providers.offers(one)] == ["local/tiny", "house/big", "house/small"]
    made = await set_up(providers, one)
    ids = ["local/tiny", "mine/m", "mine/n", "house/big", "house/small"]
    offers = await providers.offers(one)
    assert [offer.id for offer in offers] == ids
    assert {offer.api_key for offer in offers if offer.own} == {KEY}
    assert len(await providers.offers(other)) == 3
    with pytest.raises(NotFound):
        await providers.update(other, made.stored.id, changes={}, api_key="x", request_id="r")
    with pytest.raises(NotFound):
        await providers.delete(other, made.stored.id, request_id="r")
    await providers.delete(one, made.stored.id, request_id="r")
    assert len(await providers.offers(one)) == 3


@pytest.mark.anyio
async def test_a_key_is_sealed_and_shown_to_nobody(db: Database) -> None:
    """Not in the row, not in the audit, not in what is listed; its last four characters are."""
    providers, caller = make_providers(db), await new_principal(db)
    with structlog.testing.capture_logs() as lines:
        made = await set_up(providers, caller)
        await providers.update(caller, made.stored.id, changes={"concurrency": 2}, api_key=None, request_id="r")
        await providers.offers(caller)
    listed = await providers.list(caller)
    async with db.tenant(caller) as conn:
        stored = await (await conn.execute("SELECT * FROM llm_providers")).fetchall()
        audit = await (await conn.execute("SELECT * FROM audit")).fetchall()
    assert stored[0]["key_end"] == "WXYZ"
    for place in (lines, listed, stored, audit):
        assert KEY[:-4] not in str(place)
    assert KEY.encode() not in bytes(stored[0]["sealed"])
    short = await providers.create(caller, name="short", settings=settings(), api_key="abcd", request_id="r")
    assert short.stored is not None
    assert short.stored.key_end == ""


@pytest.mark.anyio
async def test_settings_change_one_by_one_and_the_key_stays(db: Database) -> None:
    """null takes a setting back."""
    providers, caller = make_providers(db), await new_principal(db)
    made = await set_up(providers, caller, concurrency=3)
    changed = await providers.update(
        caller,
        made.stored.id,
        changes={"idle_s": 7, "concurrency": None, "models": [{"name": "o"}]},
        api_key=None,
        request_id="r",
    )
    assert [(o.id, o.idle_s, o.concurrency) for o in changed.offers] == [("mine/o", 7, 8)]
    (offer,) = [o for o in await providers.offers(caller) if o.own]
    assert offer.api_key == KEY


@pytest.mark.anyio
async def test_a_key_does_not_follow_to_another_address(db: Database) -> None:
    """Who may manage providers could else send it to a server of theirs and read it there."""
    providers, caller = make_providers(db), await new_principal(db)
    made = await set_up(providers, caller)
    elsewhere = {"base_url": "http://gpu.internal:8000/v1"}
    with pytest.raises(InvalidInput, match="key anew"):
        await providers.update(caller, made.stored.id, changes=elsewhere, api_key=None, request_id="r")
    changed = await providers.update(caller, made.stored.id, changes=elsewhere, api_key="other", request_id="r")
    assert changed.offers[0].base_url == "http://gpu.internal:8000/v1"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "https://inside.example.org"},
        {"base_url": None},
        {"wire": "smoke signals"},
        {"models": []},
        {"models": "all"},
        {"name": "other"},
        {"concurrency": -1},
        {"private": True},
    ],
)
async def test_changes_that_cannot_be_are_refused_and_change_nothing(db: Database, changes: dict[str, Any]) -> None:
    """One error for each, none of them with the key."""
    providers, caller = make_providers(db), await new_principal(db)
    made = await set_up(providers, caller)
    with pytest.raises(InvalidInput) as refused:
        await providers.update(caller, made.stored.id, changes=changes, api_key=KEY, request_id="r")
    assert KEY not in f"{refused.value.detail}{refused.value.errors}"
    assert await providers.find(caller, made.stored.id) == made


@pytest.mark.anyio
async def test_a_name_is_given_once(db: Database) -> None:
    """Neither the operator's nor one of their own again."""
    providers, caller = make_providers(db), await new_principal(db)
    await set_up(providers, caller)
    for name in ("mine", "house"):
        with pytest.raises(Conflict):
            await set_up(providers, caller, name)


@pytest.mark.anyio
async def test_what_is_settled_holds_at_once_and_names_what_there_is(db: Database) -> None:
    """An unknown model is refused, and one that local_only forbids."""
    providers, caller = make_providers(db), await new_principal(db)
    assert await providers.preferences(caller) == Preferences()
    wanted = Preferences(
        default_model="house/big", fallback=("local/tiny",), by_query_type={"code": "house/small"}, local_only=False
    )
    await providers.set_preferences(caller, wanted, request_id="r")
    assert await providers.preferences(caller) == wanted
    for bad in (
        Preferences(default_model="house/none"),
        Preferences(fallback=("mine/m",)),
        Preferences(by_query_type={"code": "house/big"}, local_only=True),
    ):
        with pytest.raises(InvalidInput):
            await providers.set_preferences(caller, bad, request_id="r")
    assert await providers.preferences(caller) == wanted


@pytest.mark.anyio
async def test_while_the_database_is_away_nothing_new_leaves_the_machine(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known organisations go on as before; of others nobody knows what they have settled."""
    monkeypatch.setattr("neuroedge.services.llm.providers._KEPT_S", -1.0)
    providers, known, unknown = make_providers(db), await new_principal(db), await new_principal(db)
    await set_up(providers, known)
    before = await providers.offers(known)

    async def away(*args: object) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(providers, "_load", away)
    assert await providers.offers(known) == before
    assert await providers.offers(unknown) == HERE
    assert (await providers.preferences(unknown)).local_only


@pytest.mark.anyio
async def test_the_platform_proves_itself_with_its_own_models(db: Database) -> None:
    """A self-test costs nobody anything."""
    assert await make_providers(db).offers(PROBE) == HERE


@pytest.mark.anyio
async def test_a_change_while_offers_are_read_is_not_lost(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before it is not kept after it."""
    providers, caller = make_providers(db), await new_principal(db)
    load, reading, go_on = providers._load, asyncio.Event(), asyncio.Event()

    async def slow(org_id: UUID) -> Any:
        found = await load(org_id)
        reading.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(providers, "_load", slow)
    early = asyncio.create_task(providers.offers(caller))
    await reading.wait()
    await set_up(providers, caller)
    go_on.set()
    assert len(await early) == 3
    assert len(await providers.offers(caller)) == 5


@pytest.mark.anyio
async def test_there_is_an_end_to_providers(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are limited on everything from outside."""
    monkeypatch.setattr("neuroedge.services.llm.providers._MOST_PROVIDERS", 2)
    providers, caller = make_providers(db), await new_principal(db)
    await set_up(providers, caller, f"p{new_id().hex[:8]}-1")
    await set_up(providers, caller, "p2")
    with pytest.raises(Conflict, match="2 providers"):
        await set_up(providers, caller, "p3")
