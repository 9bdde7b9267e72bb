"""The proof of the README: a worker is killed with SIGKILL in the middle of a run, and the next worker goes on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import RedisServer
from tests.vendor import WorkerNode, wait_until

ROOT = Path(__file__).resolve().parents[2]
PROOF = ROOT / "examples" / "kill_it" / "kill_it.py"
PARCELS = 10
KILLED_AT = "packing parcel 4"
SECONDS = 90.0


def packed(worker: WorkerNode) -> list[int]:
    """Return the parcels that a worker began to pack, in order."""
    return [int(number) for number in re.findall(r"packing parcel (\d+)", worker.process.logs_since_start())]


@pytest.mark.slow
def test_a_run_goes_on_in_a_new_worker_after_the_only_one_was_killed(
    redis_server: RedisServer, worker_factory: Callable[..., WorkerNode], tmp_path: Path
) -> None:
    """Only the step that was at work runs twice; what had ended is not repeated, and nothing after it is missing."""
    shutil.copy(PROOF, tmp_path)
    env = {"CELERY_BROKER_URL": redis_server.url(8)}
    first = worker_factory("kill_it", env=env, cwd=tmp_path, concurrency=1)
    client = subprocess.Popen(
        [sys.executable, "kill_it.py"],
        cwd=tmp_path,
        env=first.process.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_until(lambda: KILLED_AT in first.process.logs_since_start(), SECONDS), first.process.tail()
        first.kill("SIGKILL")
        second = worker_factory("kill_it", env=env, cwd=tmp_path, concurrency=1)
        printed, errors = client.communicate(timeout=SECONDS)
    finally:
        client.kill()

    assert printed == f"{PARCELS} parcels on the van\n", errors
    assert packed(first) == [1, 2, 3, 4]
    assert packed(second) == [4, 5, 6, 7, 8, 9, 10]
    assert Counter(re.findall(r"parcel (\d+) again: its worker died", second.process.logs_since_start())) == {"4": 1}
