"""Numbers, moments and names from data: one that no store can hold is the request's fault, at once and in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Context, GraphInvalid, Orchestrator, PayloadTooLarge, StoreUnavailable, Workflow, step
from orchestrator.engine.settings import Settings
from orchestrator.host import new_run_id
from orchestrator.rules.bounds import MAX_NAME, MAX_SECONDS, to_delay
from tests.servers import PostgresServer, RedisServer

DB = 9
HUGE = [1e18, 1e300, float("inf"), float("nan")]


@step
def plain(x: Any) -> Any:
    return x


@step
def name(given: dict[str, str], ctx: Context) -> str:
    """Use a text from data as whatever a step may name."""
    match given["as"]:
        case "state":
            ctx.set_state({given["text"]: 1})
        case "context":
            ctx.request_context[given["text"]] = 1
        case "event":
            ctx.write_event(given["text"])
        case _:
            ctx.suspend(label=given["text"])
    return "named"


sleeping = Workflow("sleeping").sleep(lambda seconds: float(seconds)).commit()  # noqa: PLW0108 - as users write it
counting = Workflow("counting").sleep(lambda seconds: seconds).commit()
spreading = Workflow("spreading").foreach(plain, concurrency=lambda numbers: 10**400).commit()
naming = Workflow("naming").then(name).commit()
one = Workflow("one").then(plain).commit()
ALL = [sleeping, counting, spreading, naming, one]


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind."""
    match request.param:
        case "memory":
            return f"memory://{new_run_id()}"
        case "sqlite":
            return f"sqlite:///{tmp_path / 'runs.db'}"
        case "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            return postgres.url()
        case _:
            redis: RedisServer = request.getfixturevalue("redis_server")
            redis.flush(DB)
            return redis.url(DB)


def test_a_sleep_from_data_that_never_ends_fails_the_step(url: str) -> None:
    """At once: nobody takes it for a store that is away, and the error says which sleep it was."""
    with Orchestrator(store=url, workflows=ALL) as orchestrator:
        for seconds in HUGE:
            begun = time.monotonic()
            result = orchestrator.create_run(sleeping).start(repr(seconds), timeout=20)
            assert result.status == "failed"
            assert "the sleep 'sleep_sleeping_0' takes" in str(result.error)
            assert time.monotonic() - begun < 5


def test_an_integer_of_hundreds_of_digits_is_an_endless_sleep(url: str) -> None:
    """JSON has no bound for integers, and no float holds this one."""
    with Orchestrator(store=url, workflows=ALL) as orchestrator:
        result = orchestrator.create_run(counting).start(10**400, timeout=20)
    assert result.status == "failed"
    assert str(result.error).startswith("the sleep 'sleep_counting_0' takes inf seconds, where")


def test_a_concurrency_from_data_is_no_more_than_the_items(url: str) -> None:
    with Orchestrator(store=url, workflows=ALL) as orchestrator:
        assert orchestrator.create_run(spreading).start([1, 2, 3], timeout=20).result == [1, 2, 3]


@pytest.mark.parametrize("what", ["state", "context", "event", "label"])
def test_a_name_that_no_index_takes_fails_the_step(url: str, what: str) -> None:
    """One of the greatest length is taken everywhere, of whatever characters it is made."""
    with Orchestrator(store=url, workflows=ALL) as orchestrator:
        long = orchestrator.create_run(naming).start({"as": what, "text": "x" * (MAX_NAME + 1)}, timeout=20)
        assert long.status == "failed"
        assert isinstance(long.error, PayloadTooLarge)
        for text in ("x" * MAX_NAME, "ж" * (MAX_NAME // 2), "\0" * (MAX_NAME // 6), '"' * (MAX_NAME // 2)):
            result = orchestrator.create_run(naming).start({"as": what, "text": text}, timeout=20)
            assert result.status == ("suspended" if what == "label" else "success"), result.error


CALLS: dict[str, Callable[[Orchestrator], Any]] = {
    "countdown": lambda at: one.apply_async((1,), countdown=1e300),
    "countdown-digits": lambda at: one.apply_async((1,), countdown=10**400),
    "countdown-nan": lambda at: one.apply_async((1,), countdown=float("nan")),
    "eta": lambda at: one.apply_async((1,), eta=datetime(9999, 1, 1)),
    "list": lambda at: at.runs.list(limit=10**30),
    "offset": lambda at: at.runs.list(offset=2**63),
    "purge": lambda at: at.runs.purge(older_than=1e300),
    "purge-digits": lambda at: at.runs.purge(older_than=10**400),
    "heartbeat-digits": lambda at: at.create_run(one).events(heartbeat=10**400),
    "timeout": lambda at: at.create_run(one).start(1, timeout=float("nan")),
    "resource": lambda at: at.create_run(one, resource_id="x" * 5_000),
    "resource-start": lambda at: at.create_run(one).start(1, request_context={"resource_id": "x" * 5_000}),
    "state": lambda at: at.create_run(one).start(1, state={"x" * 5_000: 1}),
    "run-id": lambda at: one.apply_async((1,), run_id="\ud800"),
    "run-id-long": lambda at: one.apply_async((1,), run_id="x" * 5_000),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_caller_hears_that_the_request_is_wrong(url: str, call: str) -> None:
    """And not that the store is away, which would be a reason to ask again."""
    with Orchestrator(store=url, workflows=ALL) as orchestrator:
        before = orchestrator.runs.list().total
        with pytest.raises((ValueError, PayloadTooLarge)) as refused:
            CALLS[call](orchestrator)
        assert not isinstance(refused.value, StoreUnavailable)
        pending = 1 if call in ("timeout", "heartbeat-digits", "resource-start", "state") else 0
        assert orchestrator.runs.list().total == before + pending


def test_definitions_have_the_same_bounds() -> None:
    with pytest.raises(GraphInvalid, match="never end"):
        Workflow("w").sleep(MAX_SECONDS * 2).commit()
    with pytest.raises(GraphInvalid, match="never ends"):
        Workflow("w").wait_for_event("e", timeout=1e18).commit()
    with pytest.raises(GraphInvalid, match="longer than"):
        Workflow("w").wait_for_event("e" * 2_000).commit()
    with pytest.raises(GraphInvalid, match="characters"):
        Workflow("w").then(plain, id="x" * 1_000).commit()
    with pytest.raises(GraphInvalid, match="never end"):
        Workflow("w").sleep(10**400).commit()
    for options in (
        {"retry_delay": 1e18},
        {"retry_delay": 10**400},
        {"retries": 10**400},
        {"priority": 300},
        {"retry_backoff_max": 1e300},
        {"time_limit": 10**400},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            step(plain.fn, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "given",
    [
        {"lease_seconds": float("nan")},
        {"lease_seconds": float("inf")},
        {"tick_seconds": 1e300},
        {"republish_seconds": 0},
        {"events_max_age_seconds": float("inf")},
        {"max_payload_bytes": 10**30},
        {"max_payload_bytes": 1.5},
        {"inline_steps": "many"},
        {"compression": "lzma"},
    ],
)
def test_settings_have_bounds_too(given: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"orchestrator_{next(iter(given))}"):
        Settings(**given)


def test_a_length_of_time_is_whole_milliseconds() -> None:
    assert [to_delay(seconds, "it") for seconds in (-5, 0, 0.0004, 1.5, MAX_SECONDS)] == [
        0,
        0,
        0,
        1_500,
        round(MAX_SECONDS * 1000),
    ]
