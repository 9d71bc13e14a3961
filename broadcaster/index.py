"""The index of groups: which of them an event can concern at all."""

from collections.abc import Iterator

from broadcaster.event import Event
from broadcaster.filters import index_values
from broadcaster.group import Group


class GroupIndex:
    """Groups by the most selective value of their filter, so that an event costs what it matches, not what there is."""

    def __init__(self) -> None:
        self._by_field: dict[str, dict[str, dict[Group, None]]] = {}
        self._unindexed: dict[Group, None] = {}

    def __len__(self) -> int:
        """How many groups and values it holds; 0 when nothing is left of any."""
        return len(self._unindexed) + sum(map(len, self._by_field.values()))

    def add(self, group: Group) -> None:
        if group.key.filter.index is None:
            self._unindexed[group] = None
            return
        field, values = group.key.filter.index
        by_value = self._by_field.setdefault(field, {})
        for value in values:
            by_value.setdefault(value, {})[group] = None

    def remove(self, group: Group) -> None:
        """Nothing of it stays: values come from clients without end, and each listed field costs every event a look."""
        if group.key.filter.index is None:
            del self._unindexed[group]
            return
        field, values = group.key.filter.index
        by_value = self._by_field[field]
        for value in values:
            del by_value[value][group]
            if not by_value[value]:
                del by_value[value]
        if not by_value:
            del self._by_field[field]

    def candidates(self, event: Event) -> Iterator[Group]:
        """The groups whose filter has to be asked."""
        yield from self._unindexed
        for field, by_value in self._by_field.items():
            values = index_values(event, field)
            if len(values) == 1:
                yield from by_value.get(values[0], ())
            elif values:
                # A group that is listed under several of the event's values is asked once.
                yield from dict.fromkeys(group for value in values for group in by_value.get(value, ()))
