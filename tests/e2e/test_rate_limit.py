"""The rate limit of an organisation's engine calls, over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server that lets an organisation make three calls a minute."""
    folder = tmp_path_factory.mktemp("limited") / "data"
    with running_server(folder, models_dir, NEUROEDGE_REQUESTS_PER_MINUTE="3") as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/engines/embedding/run", "/engine/run"])
def test_an_organisation_over_its_limit_is_told_when_to_come_back(server: Server, path: str) -> None:
    """429 with Retry-After and where it stands; other organisations and other routes go on."""
    with server.new_account() as one, server.new_account() as other:
        answers = [one.post(path, json={"no such field": 1}) for _ in range(5)]
        assert [a.status_code for a in answers] == [422, 422, 422, 429, 429]
        assert [a.headers["x-ratelimit-remaining"] for a in answers] == ["2", "1", "0", "0", "0"]
        assert {a.headers["x-ratelimit-limit"] for a in answers} == {"3"}
        refused = answers[-1]
        assert refused.json()["code"] == "overloaded"
        assert refused.json()["hint"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert one.get("/v1/engines").status_code == 200
        assert other.post(path, json={"no such field": 1}).status_code == 422
