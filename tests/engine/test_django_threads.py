"""In a Django project, whatever asks its database does so in the thread, and the transaction, of its caller."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("django")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a project in a process of its own has seen: settings are for a whole process."""
    command = [sys.executable, "-W", "error", "-m", "tests.engine.django_project"]
    command.append(str(tmp_path_factory.mktemp("django") / "project.db"))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("clock", ["virtual", "real"])
def test_steps_see_the_transaction_of_their_caller(found: dict[str, Any], clock: str) -> None:
    """Arms, coroutines, and a step behind a sleep; a coroutine that asks for a suspension gets it."""
    assert found[clock] == [1, 1, 1]
    assert found[clock + " asks"] == ["suspended", 1]


def test_threads_of_the_pool_keep_no_connections(found: dict[str, Any]) -> None:
    """They are closed when a thread has nothing more to do."""
    assert found["closed"] == [True, 2]


def test_a_limit_that_strikes_cancels_the_coroutine(found: dict[str, Any]) -> None:
    """As it would in a loop of the thread's own."""
    assert found["interrupted"] == "SoftTimeLimitExceeded"
    assert found["cleaned up"] is True
