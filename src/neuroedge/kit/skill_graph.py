"""Skills and what each one needs first, as a graph: cycles, order, what is missing, what becomes possible.

Edges go from a prerequisite to what needs it. All functions run in linear time, but for `redundant`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

MAX_CYCLES: Final = 20


def graph(needs: Mapping[str, Collection[str]]) -> Any:
    """The networkx DiGraph of `needs`: skill to prerequisites. Prerequisites that are no skill become nodes too."""
    import networkx as nx

    built = nx.DiGraph()
    built.add_nodes_from(needs)
    built.add_edges_from((first, skill) for skill, firsts in needs.items() for first in firsts)
    return built


def cycles(built: Any) -> list[list[str]]:
    """One shortest cycle through each knot of skills that need each other, at most MAX_CYCLES; [a, b] is a → b → a."""
    import networkx as nx

    found: list[list[str]] = []
    for knot in nx.strongly_connected_components(built):
        start = min(knot)
        if len(knot) > 1:
            inside = built.subgraph(knot)
            back = dict(nx.single_target_shortest_path(inside, start))
            found.append([start, *min((back[after] for after in inside.successors(start)), key=len)[:-1]])
        elif built.has_edge(start, start):
            found.append([start])
    return sorted(found)[:MAX_CYCLES]


def order(built: Any) -> list[str]:
    """Every skill after its prerequisites, equals by name. ValueError for a graph with a cycle."""
    import networkx as nx

    try:
        return list(nx.lexicographical_topological_sort(built))
    except nx.NetworkXUnfeasible as e:
        raise ValueError("the skills need each other in a circle") from e


def leading_to(built: Any, goals: Sequence[str]) -> set[str]:
    """The goals and everything they need, directly or not."""
    found = set(goals)
    todo = list(goals)
    while todo:
        for first in built.predecessors(todo.pop()):
            if first not in found:
                found.add(first)
                todo.append(first)
    return found


def unlocks(built: Any, among: Collection[str]) -> dict[str, int]:
    """For each skill of `among`, how many others of it need it, directly or not. `built` must have no cycle."""
    kept = set(among)
    ranked = [skill for skill in order(built) if skill in kept]
    bit = {skill: 1 << i for i, skill in enumerate(ranked)}
    after: dict[str, int] = {}
    for skill in reversed(order(built)):
        reached = 0
        for later in built.successors(skill):
            reached |= after[later] | bit.get(later, 0)
        after[skill] = reached
    return {skill: after[skill].bit_count() for skill in ranked}


def redundant(built: Any) -> list[tuple[str, str]]:
    """Edges that a longer way already says: a → c beside a → b → c. `built` must have no cycle."""
    import networkx as nx

    reduced = nx.transitive_reduction(built)
    return sorted(edge for edge in built.edges if not reduced.has_edge(*edge))
