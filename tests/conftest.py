"""Fixtures of all tests: servers, worker processes, the parity report."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from celery import signals
from celery.result import allow_join_result
from hypothesis import settings

pytest_plugins = ["tests.vendor", "tests.servers", "tests.parity_report"]

# How long an example takes says nothing on a machine that runs other things too.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def _logging_is_pytests() -> Iterator[None]:
    """Keep workers in this process from setting the root logger's level and handlers for all later tests.

    Celery leaves logging alone where something receives this signal.
    """

    def leave_alone(**_: object) -> None: ...

    signals.setup_logging.connect(leave_alone)
    yield
    signals.setup_logging.disconnect(leave_alone)


@pytest.fixture(autouse=True)
def _joins_are_allowed_again() -> Iterator[None]:
    """Undo what a solo worker in this process sets for the whole process: that waiting for a result is an error."""
    with allow_join_result():
        yield


@pytest.fixture(autouse=True)
def _needs_docker(request: pytest.FixtureRequest) -> None:
    """Skip what is marked `docker` where no daemon answers."""
    if request.node.get_closest_marker("docker") and (reason := _no_docker()):
        pytest.skip(f"Docker: {reason}")


def _no_docker() -> str:
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no daemon answers"])[-1]
