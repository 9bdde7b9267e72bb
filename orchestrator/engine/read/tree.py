"""The activations of a run as the tree that their paths make."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from orchestrator.rules.graph import Path
from orchestrator.rules.model import Activation


class Tree:
    """The activations of the present visits of one run, by path, in the order of the paths."""

    # Whoever asks for what is inside a block gets that and looks at nothing else: a reader asks so for every item of a
    # foreach, and looking through all of them each time would cost the square of their number.

    def __init__(self, activations: Mapping[Path, Activation]) -> None:
        self._activations = activations
        self._paths = sorted(activations)

    def find_below(self, path: Path) -> list[Activation]:
        """Return the activations inside the one at `path`, in the order of their paths."""
        first = bisect_left(self._paths, (*path, 0))
        end = bisect_left(self._paths, (*path[:-1], path[-1] + 1)) if path else len(self._paths)
        return [self._activations[at] for at in self._paths[first:end]]
