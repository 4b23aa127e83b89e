"""Ways through the graph of things: neighbours, the shortest path, and the memories that lie near some names.

A walk goes along what is said of two things in memories the caller may see, in either direction, breadth first, and
ends at MAX_STEPS: a thing everything is connected to must not make the database read the whole graph.
"""

from collections.abc import Sequence
from uuid import UUID

from neuroedge.contract.ports import MemoryFilter
from neuroedge.stores.knowledge import entity_id
from neuroedge.stores.memory_filters import restricted
from neuroedge.stores.postgres import Connection

MAX_DEPTH = 6
MAX_STEPS = 20_000
NEIGHBOUR_WEIGHT = 0.3
"""What a memory about a neighbour counts, beside 1 for one about the thing itself."""
_RELATIONS = 200
_NEIGHBOURS = 10
_OWN_MENTIONS = 100
_NEIGHBOURS_MENTIONS = 10
"""What is looked at for one query is bounded, whatever is mentioned everywhere; of mentions the latest count."""

# UNION, not UNION ALL: a thing is gone on from once at each depth. The limit stops the recursion, which is lazy.
_WALK = """
walk(id, depth) AS (
    SELECT %(start)s::uuid, 0
    UNION
    SELECT edge.far, walk.depth + 1 FROM walk CROSS JOIN LATERAL (
        SELECT object_id AS far FROM relations WHERE org_id = %(org)s AND subject_id = walk.id
        UNION ALL
        SELECT subject_id FROM relations WHERE org_id = %(org)s AND object_id = walk.id
    ) AS edge WHERE walk.depth < %(depth)s
),
level AS MATERIALIZED (
    SELECT id, min(depth) AS depth FROM (SELECT id, depth FROM walk LIMIT %(steps)s) AS steps GROUP BY id
)
"""


async def neighbours(conn: Connection, *, org_id: UUID, start: UUID, depth: int, limit: int) -> list[tuple[UUID, int]]:
    """Things around one with their distance (1 to `depth`, at most MAX_DEPTH), nearest first."""
    cursor = await conn.execute(
        f"WITH RECURSIVE {_WALK} SELECT id, depth FROM level WHERE depth > 0 ORDER BY depth, id LIMIT %(limit)s",
        {"org": org_id, "start": start, "depth": min(depth, MAX_DEPTH), "steps": MAX_STEPS, "limit": limit},
    )
    return [(row["id"], row["depth"]) for row in await cursor.fetchall()]


async def path(conn: Connection, *, org_id: UUID, start: UUID, end: UUID, depth: int) -> list[UUID]:
    """Things from `start` to `end` by the fewest relations, both included; empty when none is found within `depth`."""
    cursor = await conn.execute(
        f"""
        WITH RECURSIVE {_WALK},
        back(id, depth) AS (
            SELECT id, depth FROM level WHERE id = %(end)s
            UNION ALL
            SELECT before.id, before.depth FROM back CROSS JOIN LATERAL (
                SELECT level.id, level.depth FROM level WHERE level.depth = back.depth - 1 AND EXISTS (
                    SELECT 1 FROM relations r WHERE r.org_id = %(org)s
                    AND ((r.subject_id = level.id AND r.object_id = back.id)
                        OR (r.subject_id = back.id AND r.object_id = level.id))
                ) ORDER BY level.id LIMIT 1
            ) AS before
        )
        SELECT id FROM back ORDER BY depth
        """,
        {"org": org_id, "start": start, "end": end, "depth": min(depth, MAX_DEPTH), "steps": MAX_STEPS},
    )
    return [row["id"] for row in await cursor.fetchall()]


async def memories_about(
    conn: Connection, *, org_id: UUID, names: Sequence[str], limit: int, where: MemoryFilter = MemoryFilter()
) -> list[UUID]:
    """Memories that pass a filter and mention the things of some names, or direct neighbours of these, best first.

    `names` are keys that may name something (kit/names.names_in of a query); those nobody is called by count nothing.
    A thing mentioned seldom tells more than one mentioned everywhere: 1 / ln(e + mentions), as in an idf.
    """
    conditions, values = restricted(conn.vault, org_id, where)
    cursor = await conn.execute(
        f"""
        WITH asked AS (
            SELECT unnest(%(ids)s::uuid[]) AS id
        ), near AS (
            SELECT edge.far AS id FROM asked CROSS JOIN LATERAL (
                (SELECT object_id AS far FROM relations WHERE org_id = %(org)s AND subject_id = asked.id
                    LIMIT %(relations)s)
                UNION ALL
                (SELECT subject_id FROM relations WHERE org_id = %(org)s AND object_id = asked.id LIMIT %(relations)s)
            ) AS edge WHERE edge.far NOT IN (SELECT id FROM asked)
            GROUP BY edge.far ORDER BY count(*) DESC, edge.far LIMIT %(neighbours)s
        ), things AS (
            SELECT id, 1.0 AS weight, %(own)s::integer AS most FROM asked
            UNION ALL SELECT id, %(neighbour)s, %(others)s FROM near
        ), weighed AS (
            SELECT n.memory_id, t.weight / ln(exp(1.0) + count(*) OVER (PARTITION BY t.id)) AS score
            FROM things t CROSS JOIN LATERAL (
                SELECT memory_id FROM mentions WHERE org_id = %(org)s AND entity_id = t.id
                ORDER BY memory_id DESC LIMIT t.most
            ) AS n
        )
        SELECT m.id FROM weighed JOIN memories m ON m.id = weighed.memory_id AND {conditions}
        GROUP BY m.id ORDER BY sum(weighed.score) DESC, m.id DESC LIMIT %(limit)s
        """,
        {
            **values,
            "ids": [entity_id(conn, org_id, name) for name in names],
            "relations": _RELATIONS,
            "neighbours": _NEIGHBOURS,
            "own": _OWN_MENTIONS,
            "others": _NEIGHBOURS_MENTIONS,
            "neighbour": NEIGHBOUR_WEIGHT,
            "limit": limit,
        },
    )
    return [row["id"] for row in await cursor.fetchall()]
