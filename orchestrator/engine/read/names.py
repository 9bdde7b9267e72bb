"""The names of activations: the ids of the steps around each, as users write and read them."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.rules.graph import Path
from orchestrator.rules.model import Activation


class Names:
    """Names the activations of one run, or of the nested workflow in it whose path is `scope`."""

    # By the ids that the activations store and not by a graph: a run can be read where its workflow is not known.

    def __init__(self, activations: Mapping[Path, Activation], scope: Path) -> None:
        self._activations = activations
        self._scope = scope

    def step_ids(self, activation: Activation) -> list[str]:
        """Return the step ids from the outermost workflow down to an activation."""
        scopes = sorted(cut for cut in self.scope_lengths(activation) if cut > len(self._scope))
        return [*(self._activations[activation.at[:cut]].step for cut in scopes), activation.step]

    def dotted_name(self, activation: Activation) -> str:
        """Return the name of an activation among step results: `outer.inner`, or `outer[item].inner`."""
        # Blocks have no part in it: users know the step ids of their workflows, and not how these are nested in blocks.
        lengths = self.scope_lengths(activation)
        names = []
        for cut in range(len(self._scope) + 1, len(activation.at)):
            above = self._activations.get(activation.at[:cut])
            if above is not None and cut in lengths:
                names.append(f"{above.step}[{above.index}]" if above.index >= 0 else above.step)
        return ".".join([*names, activation.step])

    def scope_lengths(self, activation: Activation) -> set[int]:
        """Return the lengths of the paths of the nested workflows around an activation."""
        # A path tells which parts of it are nested workflows only together with the scopes that the activations store.
        found, scope = set(), activation.scope
        while scope:
            found.add(scope)
            above = self._activations.get(activation.at[:scope])
            scope = above.scope if above else 0
        return found

    def item_index(self, activation: Activation) -> int:
        """Return the index of the innermost item that an activation is, or stands in; -1 outside of any foreach."""
        for cut in range(len(activation.at), 0, -1):
            found = activation if cut == len(activation.at) else self._activations.get(activation.at[:cut])
            if found is not None and found.index >= 0:
                return found.index
        return -1
