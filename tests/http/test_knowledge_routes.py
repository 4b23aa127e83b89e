"""The knowledge routes: what they ask of the service, what they refuse, how they say what was found."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from neuroedge.contract.errors import NotFound
from neuroedge.contract.principal import ROLE_PERMISSIONS
from neuroedge.http.routes.knowledge import router
from neuroedge.services.knowledge import EntityDetail, Neighbour, Path
from neuroedge.stores.knowledge import Entity, Mention, Relation, Standing
from tests.fakes import make_principal
from tests.http.plain_platform import make_app, token

ANN = Entity(id=UUID(int=1), name="Ann", type="person", memories=2)
BOB = Entity(id=UUID(int=2), name="Bob", type="person", memories=1)
SAID = Relation(
    id=uuid4(),
    subject_id=ANN.id,
    predicate="like",
    object_id=BOB.id,
    negated=True,
    modal="may",
    reported=False,
    memory_id=uuid4(),
    sentence="Ann may not like Bob.",
    start=3,
    end=24,
)


class Graph:
    """A service that knows Ann and Bob and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def standing(self, principal: Any) -> Standing:
        """Half done."""
        return Standing(memories=4, read=2, entities=2, relations=1)

    async def extract(self, principal: Any, *, request_id: str) -> Standing:
        """Ordered."""
        self.asked.append(("extract", {"request_id": request_id}))
        return await self.standing(principal)

    async def entities(self, principal: Any, **asked: Any) -> list[Entity]:
        """Both."""
        self.asked.append(("entities", asked))
        return [ANN, BOB]

    async def entity(self, principal: Any, entity_id: UUID, **asked: Any) -> EntityDetail:
        """Ann only."""
        self.asked.append(("entity", asked))
        if entity_id != ANN.id:
            raise NotFound("no such entity")
        return EntityDetail(
            entity=ANN,
            mentions=[Mention(memory_id=SAID.memory_id, surfaces=["Ann"], places=[(3, 6)])],
            relations=[SAID],
            others={BOB.id: BOB},
            neighbours=[Neighbour(entity=BOB, distance=1)],
        )

    async def path(self, principal: Any, **asked: Any) -> Path:
        """From Ann to Bob."""
        self.asked.append(("path", asked))
        return Path(entities=[ANN, BOB], relations=[SAID])


@pytest.fixture
def graph() -> Graph:
    """The service."""
    return Graph()


@pytest.fixture
def client(graph: Graph) -> TestClient:
    """A member's client."""
    app = make_app(router, knowledge=graph)
    return TestClient(app, headers=token(app, make_principal()))


def test_the_standing_is_told_and_reading_ordered(client: TestClient, graph: Graph) -> None:
    """202: it happens in the background."""
    standing = {"memories": 4, "read": 2, "entities": 2, "relations": 1}
    assert client.get("/v1/knowledge").json() == standing
    ordered = client.post("/v1/knowledge/extract")
    assert (ordered.status_code, ordered.json()) == (202, standing)
    assert graph.asked[0][0] == "extract"


def test_entities_are_listed_by_name_type_and_page(client: TestClient, graph: Graph) -> None:
    """Every parameter reaches the service."""
    answer = client.get("/v1/knowledge/entities?name=Ann&type=person&limit=7&offset=3")
    assert [entity["name"] for entity in answer.json()["entities"]] == ["Ann", "Bob"]
    assert graph.asked == [("entities", {"name": "Ann", "type_": "person", "limit": 7, "offset": 3})]


def test_an_entity_comes_with_relations_their_evidence_and_neighbours(client: TestClient) -> None:
    """The flags of a relation are told with it."""
    body = client.get(f"/v1/knowledge/entities/{ANN.id}?depth=2").json()
    [relation] = body["relations"]
    assert (relation["subject"]["name"], relation["predicate"], relation["object"]["name"]) == ("Ann", "like", "Bob")
    assert (relation["negated"], relation["modal"], relation["reported"]) == (True, "may", False)
    assert relation["evidence"] == {
        "memory_id": str(SAID.memory_id),
        "sentence": "Ann may not like Bob.",
        "start": 3,
        "end": 24,
    }
    assert body["mentions"][0]["places"] == [[3, 6]]
    assert [(near["name"], near["distance"]) for near in body["neighbours"]] == [("Bob", 1)]
    assert client.get(f"/v1/knowledge/entities/{uuid4()}").status_code == 404


def test_a_path_is_told_with_what_connects_it(client: TestClient, graph: Graph) -> None:
    """Both ends are needed."""
    body = client.get(f"/v1/knowledge/path?from={ANN.id}&to={BOB.id}&depth=3").json()
    assert [entity["name"] for entity in body["entities"]] == ["Ann", "Bob"]
    assert body["relations"][0]["evidence"]["sentence"] == SAID.sentence
    assert graph.asked == [("path", {"start": ANN.id, "end": BOB.id, "depth": 3})]
    assert client.get(f"/v1/knowledge/path?from={ANN.id}").status_code == 422


@pytest.mark.parametrize(
    "path",
    [
        "entities?limit=0",
        "entities?limit=1000000000",
        "entities?offset=-1",
        "entities?type=date",
        f"entities?name={'x' * 201}",
        "entities/not-an-id",
        f"entities/{ANN.id}?depth=5",
        f"path?from={ANN.id}&to={BOB.id}&depth=0",
        f"path?from={ANN.id}&to=Bob",
    ],
)
def test_what_makes_no_sense_is_refused(client: TestClient, graph: Graph, path: str) -> None:
    """Before the service is asked."""
    assert client.get(f"/v1/knowledge/{path}").status_code == 422
    assert graph.asked == []


def test_a_viewer_may_look_but_not_order(graph: Graph) -> None:
    """Reading memories runs an engine."""
    app = make_app(router, knowledge=graph)
    viewer = replace(make_principal(), role="viewer", permissions=ROLE_PERMISSIONS["viewer"])
    with TestClient(app, headers=token(app, viewer)) as client:
        assert client.get("/v1/knowledge").status_code == 200
        assert client.post("/v1/knowledge/extract").status_code == 403
    assert TestClient(app).get("/v1/knowledge").status_code == 401
