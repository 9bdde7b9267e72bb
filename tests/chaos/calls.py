"""The calls of a round's callers, noted before and after, so that a killed caller leaves an open one."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator import BrokerUnavailable, OrchestratorError
from tests.chaos.effects import Journal, lines

WON = "won"
OPEN = ""


@dataclass(frozen=True)
class Call:
    """One call of a caller; `outcome` is WON, the class of the error, or OPEN where the caller was killed meanwhile."""

    id: str
    caller: str
    verb: str
    run: str
    begin: float
    # what a resume names, or an event's name
    label: str = ""
    outcome: str = OPEN
    end: float | None = None
    text: str = ""

    @property
    def is_definite(self) -> bool:
        """True if the caller knows what has become of it."""
        return self.outcome not in (OPEN, "BrokerUnavailable", "StoreUnavailable", "TimeoutError")


class Caller:
    """The journal of one caller, which goes on where a killed predecessor of the same name ended."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._journal = Journal(folder, name)
        self._numbers = itertools.count(1)

    def call(self, verb: str, run: str, action: Callable[[str], object], label: str = "") -> Call:
        """Do it, with the call's id at hand, and return what came of it."""
        call_id = f"{self.name}-{os.getpid()}-{next(self._numbers)}"
        begun = {"id": call_id, "caller": self.name, "verb": verb, "run": run, "label": label, "begin": time.time()}
        self._journal.append(begun)
        outcome, text = WON, ""
        try:
            action(call_id)
        except Exception as error:  # noqa: BLE001 - the verdict looks at its class
            outcome, text = type(error).__name__, str(error)
            if isinstance(error, BrokerUnavailable) and error.is_refused:
                text = f"refused: {text}"
            elif not isinstance(error, OrchestratorError):
                text = f"unexpected: {text}"
        ended = begun | {"outcome": outcome, "end": time.time(), "text": text}
        self._journal.append(ended)
        return Call(**ended)  # type: ignore[arg-type]


def read(folder: Path, pattern: str = "*") -> list[Call]:
    """Return all calls, in the order in which they began."""
    found: dict[str, Call] = {}
    for line in lines(folder, f"{pattern}.jsonl"):
        found[cast(str, line["id"])] = Call(**line)  # type: ignore[arg-type]
    return sorted(found.values(), key=lambda call: call.begin)
