"""The names of records: the ids of the steps around each, as users write and read them."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.graph import Path
from orchestrator.core.records import Record


class Names:
    """Names the records of one run, or of the nested workflow in it whose path is `scope`."""

    # By what the records say of themselves and not by a graph: a run is to be readable where its workflow is unknown.

    def __init__(self, records: Mapping[Path, Record], scope: Path) -> None:
        self._records = records
        self._scope = scope

    def step_ids(self, record: Record) -> list[str]:
        """The step ids from the outermost workflow down to a record."""
        scopes = sorted(cut for cut in self.scope_lengths(record) if cut > len(self._scope))
        return [*(self._records[record.at[:cut]].step for cut in scopes), record.step]

    def dotted_name(self, record: Record) -> str:
        """The name of a record among step results: `outer.inner`, or `outer[item].inner`."""
        lengths = self.scope_lengths(record)
        names = []
        for cut in range(len(self._scope) + 1, len(record.at)):
            above = self._records.get(record.at[:cut])
            if above is not None and cut in lengths:
                names.append(f"{above.step}[{above.index}]" if above.index >= 0 else above.step)
        return ".".join([*names, record.step])

    def scope_lengths(self, record: Record) -> set[int]:
        """Lengths of the paths of the nested workflows around a record."""
        found, scope = set(), record.scope
        while scope:
            found.add(scope)
            above = self._records.get(record.at[:scope])
            scope = above.scope if above else 0
        return found

    def item_index(self, record: Record) -> int:
        """The index of the item that a record is or stands in, the innermost one; -1 outside of any foreach."""
        for cut in range(len(record.at), 0, -1):
            found = record if cut == len(record.at) else self._records.get(record.at[:cut])
            if found is not None and found.index >= 0:
                return found.index
        return -1
