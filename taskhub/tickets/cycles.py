"""Where edges between tickets lead: what keeps blockers and parents from going in circles."""

from collections import defaultdict
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, bindparam, select

from taskhub.storage.schema import ticket_relations, tickets
from taskhub.tickets.unit import TicketUnit


class Edges:
    """The edges from one column of a table to another, those for which `conditions` hold."""

    def __init__(self, source: Column[Any], target: Column[Any], *conditions: ColumnElement[bool]) -> None:
        edges = select(source.label("source"), target.label("target")).where(
            source.table.c.workspace_id == bindparam("workspace"), *conditions
        )
        # One statement, however far it leads: everybody else in the workspace waits for it. A union, so that what is
        # there already is not walked again.
        walked = edges.where(source == bindparam("start")).cte("walked", recursive=True)
        walked = walked.union(edges.where(source == walked.c.target))
        self._walked = select(walked.c.source, walked.c.target).order_by(walked.c.source, walked.c.target)
        self._leads = select(walked.c.target).where(walked.c.target == bindparam("goal")).limit(1)

    def lead(self, unit: TicketUnit, start: int, goal: int) -> bool:
        """Whether one comes from ticket `start` to `goal`, which may be the same."""
        parameters = {"workspace": unit.transaction.workspace, "start": start, "goal": goal}
        return start == goal or unit.transaction.connection.execute(self._leads, parameters).first() is not None

    def way(self, unit: TicketUnit, start: int, goal: int) -> list[int]:
        """The shortest way from `start` to `goal`, both among it; empty when none leads there."""
        if not self.lead(unit, start, goal):
            return []
        targets: defaultdict[int, list[int]] = defaultdict(list)
        parameters = {"workspace": unit.transaction.workspace, "start": start}
        for row in unit.transaction.connection.execute(self._walked, parameters):
            targets[row.source].append(row.target)
        came_from = {start: start}
        waiting = [start]
        for no in waiting:
            new = [target for target in targets[no] if target not in came_from]
            came_from |= dict.fromkeys(new, no)
            waiting += new
        way = [goal]
        while way[-1] != start:
            way.append(came_from[way[-1]])
        return way[::-1]


BLOCKING: Final = Edges(ticket_relations.c.from_no, ticket_relations.c.to_no, ticket_relations.c.kind == "blocks")
PARENTS: Final = Edges(tickets.c.no, tickets.c.parent_no, tickets.c.parent_no.is_not(None))
"""From each ticket to the one above it."""
