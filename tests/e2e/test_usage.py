"""Providers, usage and budgets over HTTP: set up, tried, counted, limited; bad input refused, keys shown to nobody."""

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Server, running_server
from tests.upstreams import Reply, Upstream, running_upstream

KEY = "sk-proj-of-the-tenant-0123456789-WXYZ"
OPERATORS_KEY = "sk-of-the-operator-0123456789"
PRICE = {"prompt_usd_per_million": "10", "completion_usd_per_million": "100"}


@dataclass
class Site:
    """A server whose operator and tenants use one upstream."""

    server: Server
    upstream: Upstream
    log: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Site]:
    """With a providers.toml, and the upstream's address allowed to tenants."""
    data_dir = tmp_path_factory.mktemp("usage") / "data"
    data_dir.mkdir(mode=0o700)
    with running_upstream() as upstream:
        host = upstream.url.removeprefix("http://")
        (data_dir / "providers.toml").write_text(
            f'[[provider]]\nname = "house"\nwire = "openai"\nbase_url = "{upstream.openai_url}"\n'
            'api_key_env = "HOUSE_KEY"\n[[provider.model]]\nname = "shared"\n'
        )
        with running_server(data_dir, models_dir, HOUSE_KEY=OPERATORS_KEY, NEUROEDGE_LLM_PRIVATE_HOSTS=host) as server:
            yield Site(server, upstream, data_dir.parent / "data.log")


@pytest.fixture
def tenant(site: Site) -> Iterator[httpx.Client]:
    """The owner of a fresh organisation on it."""
    with site.server.new_account() as client:
        yield client


@pytest.fixture(scope="module")
def harmless(site: Site) -> Iterator[httpx.Client]:
    """The owner of an organisation for what changes nothing."""
    with site.server.new_account() as client:
        yield client


def set_up(client: httpx.Client, site: Site, **change: Any) -> dict[str, Any]:
    """A provider of the tenant's own."""
    body = {
        "name": "mine",
        "wire": "openai",
        "base_url": site.upstream.openai_url,
        "api_key": KEY,
        "models": [{"name": "m", "price": PRICE}, {"name": "n"}],
        **change,
    }
    answer = client.post("/v1/providers", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def settled(client: httpx.Client) -> dict[str, Any]:
    """The usage once no call is open: a failed one's error comes before its row is closed."""
    until = time.monotonic() + 60
    while (total := client.get("/v1/usage").json()["total"])["open"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    found: dict[str, Any] = total
    return found


def test_a_provider_lives(site: Site, tenant: httpx.Client) -> None:
    """Set up, tried with a real call, listed, changed, deleted; its key goes to the provider and to nobody else."""
    made = set_up(tenant, site)
    assert made["key_end"] == "WXYZ"
    site.upstream.script("m", Reply(text="OK then."))
    tried = tenant.post(f"/v1/providers/{made['id']}/test", json={}).json()
    assert (tried["ok"], tried["model"], tried["answer"]) == (True, "mine/m", "OK then.")
    (asked,) = site.upstream.requests("m")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    listed = tenant.get("/v1/providers").json()["providers"]
    assert {"mine", "house"} <= {one["name"] for one in listed}
    (mine,) = [one for one in listed if one["name"] == "mine"]
    assert [model["id"] for model in mine["models"]] == ["mine/m", "mine/n"]
    assert mine["models"][0]["price"]["prompt_usd_per_million"] == 10
    assert mine["models"][1]["price"] is None
    changed = tenant.patch(f"/v1/providers/{made['id']}", json={"settings": {"concurrency": 2}})
    assert changed.json()["settings"]["concurrency"] == 2
    assert tenant.delete(f"/v1/providers/{made['id']}").status_code == 204
    assert "mine" not in tenant.get("/v1/providers").text
    assert tenant.post(f"/v1/providers/{made['id']}/test", json={}).status_code == 404
    assert KEY not in "".join([str(made), str(tried), str(listed), changed.text, site.log.read_text()])
    assert OPERATORS_KEY not in str(listed) + site.log.read_text()


def test_a_provider_that_refuses_is_told_without_the_key(site: Site, tenant: httpx.Client) -> None:
    """Though the vendor's error repeats it; the failed call is in the ledger and costs nothing."""
    made = set_up(tenant, site, models=[{"name": "locked", "price": PRICE}])
    site.upstream.keys = {"another"}
    try:
        answer = tenant.post(f"/v1/providers/{made['id']}/test", json={})
    finally:
        site.upstream.keys = None
    tried = answer.json()
    assert not tried["ok"]
    assert tried["code"] == "provider_failed"
    assert KEY not in answer.text + site.log.read_text()
    total = settled(tenant)
    assert (total["calls"], total["failures"], float(total["cost_usd"])) == (1, 1, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "local"},
        {"name": "house/x"},
        {"name": ""},
        {"base_url": "https://127.0.0.1/v1"},
        {"base_url": "https://10.1.2.3"},
        {"base_url": "https://169.254.169.254/latest/meta-data"},
        {"base_url": "https://[::1]/v1"},
        {"base_url": "file:///etc/passwd"},
        {"base_url": "https://user:secret@example.org"},
        {"base_url": "http://127.0.0.1:1/v1"},
        {"api_key": "line\nbreak"},
        {"api_key": ""},
        {"models": []},
        {"models": [{"name": "m"}, {"name": "m"}]},
        {"models": [{"name": "m", "price": {"prompt_usd_per_million": -1, "completion_usd_per_million": 1}}]},
        {"concurrency": 0},
        {"wire": "local"},
        {"unknown": 1},
        {"idle_s": 0},
        {"private": "perhaps"},
    ],
)
def test_bad_providers_are_refused(site: Site, harmless: httpx.Client, change: dict[str, Any]) -> None:
    """422, nothing kept, and no key in the answer."""
    good = {"name": "mine", "wire": "openai", "base_url": site.upstream.openai_url, "models": [{"name": "m"}]}
    answer = harmless.post("/v1/providers", json={**good, "api_key": KEY, **change})
    assert answer.status_code == 422
    assert KEY not in answer.text
    assert "organisation" not in {one["source"] for one in harmless.get("/v1/providers").json()["providers"]}


def test_the_operators_name_is_taken(site: Site, tenant: httpx.Client) -> None:
    """A conflict, as a second one of one's own."""
    body = {"name": "house", "kind": "openai", "api_key": KEY}
    assert tenant.post("/v1/providers", json=body).status_code == 409


def test_the_policy_names_models_there_are(site: Site, tenant: httpx.Client) -> None:
    """What is settled is read again; unknown models and what local_only forbids are refused."""
    wanted = {"default_model": "house/shared", "local_only": False, "fallback": ["house/shared"], "by_query_type": {}}
    assert tenant.put("/v1/providers/policy", json=wanted).json() == wanted
    assert tenant.get("/v1/providers/policy").json() == wanted
    for bad in (
        {"default_model": "house/none"},
        {"default_model": "house"},
        {"default_model": "house/shared", "local_only": True},
        {"by_query_type": {"Bad Type": "house/shared"}},
        {"fallback": ["x/y"] * 51},
    ):
        assert tenant.put("/v1/providers/policy", json=bad).status_code == 422
    assert tenant.get("/v1/providers/policy").json() == wanted


def test_usage_is_summed_and_listed(site: Site, tenant: httpx.Client) -> None:
    """By every group, as JSON and CSV, page by page; the sums are the provider's counts."""
    made = set_up(tenant, site, models=[{"name": "counted", "price": PRICE}, {"name": "unpriced"}])
    for model in ("counted", "counted", "unpriced"):
        assert tenant.post(f"/v1/providers/{made['id']}/test", json={"model": model}).json()["ok"]
    prompt, completion = site.upstream.billed("counted")
    usage = tenant.get("/v1/usage", params={"group_by": "model"}).json()
    groups = {group["key"]: group for group in usage["groups"]}
    counted = groups["mine/counted"]
    assert (counted["calls"], counted["prompt_tokens"], counted["completion_tokens"]) == (2, prompt, completion)
    assert float(counted["cost_usd"]) == pytest.approx((10 * prompt + 100 * completion) / 1e6)
    told = groups["mine/unpriced"]
    assert told["unpriced"] == 1
    assert told["unpriced_tokens"] == told["prompt_tokens"] + told["completion_tokens"] > 0
    assert (counted["unpriced"], counted["unpriced_tokens"]) == (0, 0)
    assert usage["total"]["unpriced_tokens"] == told["unpriced_tokens"]
    assert usage["total"]["calls"] == 3
    me = tenant.get("/auth/me").json()["user_id"]
    for group_by, key in (("provider", "mine"), ("user", me), ("query_type", "provider_test")):
        (group,) = tenant.get("/v1/usage", params={"group_by": group_by}).json()["groups"]
        assert (group["key"], group["calls"]) == (key, 3)
    answer = tenant.get("/v1/usage", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["calls"], row["prompt_tokens"]) == ("3", str(usage["total"]["prompt_tokens"]))
    first = tenant.get("/v1/usage/calls", params={"limit": 2}).json()
    second = tenant.get("/v1/usage/calls", params={"limit": 2, "before": first["next"]}).json()
    assert (len(first["calls"]), len(second["calls"]), second["next"]) == (2, 1, None)
    assert [call["model"] for call in first["calls"] + second["calls"]] == ["unpriced", "counted", "counted"]
    assert first["calls"][1]["price_source"] == "as configured"
    assert [call["unpriced"] for call in first["calls"]] == [True, False]
    assert tenant.get("/v1/usage", params={"to": "2026-01-01"}).json()["total"]["calls"] == 0


@pytest.mark.parametrize(
    "params",
    [
        {"group_by": "mood"},
        {"from": "yesterday"},
        {"from": "2026-01-01T00:00:00"},
        {"from": "2026-02-01", "to": "2026-01-01"},
        {"from": "2020-01-01", "to": "2026-01-01"},
        {"from": "9999-12-31"},
        {"since": "2026-01-01"},
        {"group_by": "day'; DROP TABLE llm_calls; --"},
    ],
)
def test_bad_questions_about_usage_are_refused(harmless: httpx.Client, params: dict[str, str]) -> None:
    """422 with the field."""
    assert harmless.get("/v1/usage", params=params).status_code == 422


def test_a_budget_stops_calls_before_the_provider_is_asked(site: Site, tenant: httpx.Client) -> None:
    """Set, seen to be spent, raised; the operator's provider and one's own are one purse."""
    made = set_up(tenant, site, models=[{"name": "dear", "price": PRICE}])
    wanted = {"organisation": {"month": {"soft_usd": "0.000001", "hard_usd": "0.0001"}}}
    assert tenant.put("/v1/budgets", json=wanted).status_code == 200
    assert tenant.post(f"/v1/providers/{made['id']}/test", json={}).json()["ok"]
    while (tried := tenant.post(f"/v1/providers/{made['id']}/test", json={}).json())["ok"]:
        assert len(site.upstream.requests("dear")) < 10
    asked = len(site.upstream.requests("dear"))
    assert tried["code"] == "budget_exceeded"
    assert tenant.post(f"/v1/providers/{made['id']}/test", json={}).json()["code"] == "budget_exceeded"
    assert len(site.upstream.requests("dear")) == asked
    standing = tenant.get("/v1/budgets").json()["standing"]
    (month,) = [one for one in standing if (one["scope"], one["period"]) == ("organisation", "month")]
    assert month["warns"]
    assert float(month["cost_usd"]) == float(tenant.get("/v1/usage").json()["total"]["cost_usd"])
    assert tenant.put("/v1/budgets", json={}).json()["organisation"] == {"day": None, "month": None}
    assert tenant.post(f"/v1/providers/{made['id']}/test", json={}).json()["ok"]


def test_a_soft_budget_that_is_reached_is_told_with_every_answer(site: Site, tenant: httpx.Client) -> None:
    """Whole and streamed, with what is used of what; and in the usage. Not before, and not without a budget."""
    set_up(tenant, site, models=[{"name": "soft", "price": PRICE}])
    asked = {"model": "mine/soft", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}

    def header(**more: Any) -> str | None:
        answer = tenant.post("/v1/chat/completions", json={**asked, **more})
        assert answer.status_code == 200, answer.text
        return answer.headers.get("x-neuroedge-budget")

    assert header() is None
    assert tenant.get("/v1/usage").json()["warnings"] == []
    tenant.put("/v1/budgets", json={"each_user": {"month": {"soft_usd": "0.00001"}}, "organisation": {}})
    for more in ({}, {"stream": True}):
        told = header(**more)
        assert told is not None
        words = dict(part.split("=") for part in told.split("; ")[1:])
        assert told.split("; ")[0] == "soft-limit-reached"
        assert (words["scope"], words["period"], words["limit"]) == ("user", "month", "0.00001")
        assert float(words["used"]) >= 0.00001
    (warning,) = tenant.get("/v1/usage").json()["warnings"]
    assert (warning["scope"], warning["period"], warning["warns"]) == ("user", "month", True)
    tenant.put("/v1/budgets", json={"organisation": {"month": {"soft_usd": "1000"}}})
    assert header() is None
    tenant.put("/v1/budgets", json={})
    assert header() is None


@pytest.mark.models
def test_a_soft_budget_is_told_with_embeddings_too(site: Site, tenant: httpx.Client) -> None:
    """Though they cost nothing here: the caller's next question may."""
    set_up(tenant, site, models=[{"name": "spender", "price": PRICE}])
    asked = {"model": "mine/spender", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    assert tenant.post("/v1/chat/completions", json=asked).status_code == 200
    tenant.put("/v1/budgets", json={"organisation": {"day": {"soft_usd": "0.000001"}}})
    answer = tenant.post("/v1/embeddings", json={"model": "default", "input": "hello"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-neuroedge-budget"].startswith("soft-limit-reached; scope=organisation; period=day; ")


@pytest.mark.parametrize(
    "body",
    [
        {"organisation": {"day": {"hard_usd": -1}}},
        {"organisation": {"day": {"soft_usd": 2, "hard_usd": 1}}},
        {"organisation": {"week": {"hard_usd": 1}}},
        {"organisation": {"day": {"hard_usd": "NaN"}}},
        {"organisation": {"day": {"hard_usd": "1e400"}}},
        {"users": {"nobody": {"day": {"hard_usd": 1}}}},
        {"users": {f"{n:032x}": {} for n in range(1001)}},
    ],
)
def test_bad_budgets_are_refused(harmless: httpx.Client, body: dict[str, Any]) -> None:
    """422, and those before stay."""
    assert harmless.put("/v1/budgets", json=body).status_code == 422


def test_a_budget_for_a_stranger_is_not_found(site: Site, tenant: httpx.Client) -> None:
    """Another organisation's user looks like none."""
    with site.server.new_account() as other:
        theirs = other.get("/auth/me").json()["user_id"]
    answer = tenant.put("/v1/budgets", json={"users": {theirs: {"day": {"hard_usd": 1}}}})
    assert answer.status_code == 404


def test_another_tenants_providers_are_neither_seen_nor_used(site: Site, tenant: httpx.Client) -> None:
    """Not by id, not by name, and its calls are in no other's usage."""
    made = set_up(tenant, site, models=[{"name": "secret"}])
    assert tenant.post(f"/v1/providers/{made['id']}/test", json={}).json()["ok"]
    with site.server.new_account() as other:
        assert "secret" not in other.get("/v1/providers").text
        for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/test")):
            answer = other.request(method, f"/v1/providers/{made['id']}{path}", json={})
            assert answer.status_code == 404
        assert other.get("/v1/usage").json()["total"]["calls"] == 0
        assert other.get("/v1/usage/calls").json()["calls"] == []
        assert other.put("/v1/providers/policy", json={"default_model": "mine/secret"}).status_code == 422


def test_who_does_not_manage_the_organisation_sees_names_and_changes_nothing(site: Site, tenant: httpx.Client) -> None:
    """With a key that may read and write: providers and models, not where they are, and no budgets."""
    made = set_up(tenant, site)
    key = tenant.post("/v1/api-keys", json={"name": "reader", "scopes": ["read", "write"]}).json()["key"]
    with httpx.Client(base_url=site.server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as reader:
        (mine,) = [one for one in reader.get("/v1/providers").json()["providers"] if one["name"] == "mine"]
        assert [model["model"] for model in mine["models"]] == ["m", "n"]
        assert (mine["settings"], mine["key_end"]) == (None, None)
        assert site.upstream.url not in reader.get("/v1/providers").text
        assert reader.get("/v1/usage").status_code == 200
        path = f"/v1/providers/{made['id']}"
        for method, url in (
            ("POST", "/v1/providers"),
            ("PATCH", path),
            ("DELETE", path),
            ("POST", f"{path}/test"),
            ("PUT", "/v1/providers/policy"),
            ("GET", "/v1/budgets"),
            ("PUT", "/v1/budgets"),
        ):
            assert reader.request(method, url, json={}).status_code == 403, (method, url)
