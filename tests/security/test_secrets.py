"""Secrets: not in a repr, a frame, a URL or an error; keys that change; ciphertexts that stay where they belong."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orchestrator import Context, Orchestrator, RunInfo, SecretUnavailable, StoreUnavailable, Workflow, step
from orchestrator.engine.contexts import Contexts
from orchestrator.engine.settings import Settings
from orchestrator.safe_text import masked_url
from orchestrator.stores import open_store
from orchestrator.stores.redis import RedisStore
from orchestrator.stores.sql import SqlStore

TOKEN = "Bearer abc-123"
OLD, NEW = "the key of yesterday", "the key of tomorrow"
MARKED: dict[str, Any] = {"secret_context_keys": ["token"]}
PASSWORD = "p@ss:w/ord#%"


# --- what is printed -------------------------------------------------------------------------------------------------


def _frames(error: BaseException | None) -> Iterator[str]:
    """Give the locals of all frames as an error tracker prints them."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        yield from (repr(value) for value in trace.tb_frame.f_locals.values())
        trace = trace.tb_next


def test_no_repr_and_no_frame_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Error trackers print the locals of each frame of a traceback; user code logs contexts and infos."""
    frames: list[str] = []

    @step
    def pay(x: int, ctx: Context) -> int:
        assert ctx.request_context["token"] == TOKEN
        logging.getLogger("shop").warning("paying %s with %s", ctx, ctx.request_context)
        return 1 // x

    def on_error(info: RunInfo) -> None:
        assert info.request_context["token"] == TOKEN
        logging.getLogger("shop").error("%s %s", info, info.request_context)

    class Tracker(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            frames.extend(_frames(record.exc_info[1] if record.exc_info else None))

    handler = Tracker()
    logging.getLogger("orchestrator").addHandler(handler)
    paying = Workflow("paying", on_start=on_error, on_error=on_error, on_finish=on_error).then(pay).commit()
    with Orchestrator(workflows=[paying], secret_key=OLD, **MARKED) as orchestrator:
        run = orchestrator.create_run(paying)
        result = run.start(0, request_context={"token": TOKEN, "tenant": "acme"})
        shown = [repr(orchestrator.settings), str(dataclasses.asdict(orchestrator.settings)), repr(orchestrator)]
    logging.getLogger("orchestrator").removeHandler(handler)
    assert isinstance(result.error, ZeroDivisionError)
    assert frames
    assert TOKEN not in "\n".join([*frames, *shown, caplog.text])
    assert OLD not in "\n".join([*frames, *shown, caplog.text])
    assert "'tenant': 'acme'" in caplog.text  # only what is secret is hidden


def test_a_record_has_the_request_context_without_its_secrets(tmp_path: Path) -> None:
    """So whoever started a run can be shown; a process that only looks needs no key for that."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with Orchestrator(store=url, workflows=[gated], secret_key=OLD, **MARKED) as orchestrator:
        run = orchestrator.create_run(gated)
        run.start(1, request_context={"token": TOKEN, "started_by": "ada", "roles": ["a"]})
    with Orchestrator(store=url) as looking:
        record = looking.runs.get(run.run_id)
        assert record is not None
        assert record.request_context == {"token": "***", "started_by": "ada", "roles": ["a"]}
        assert record.to_dict()["request_context"] == record.request_context
        assert looking.runs.list().runs[0].request_context is None
        partial = looking.runs.get(run.run_id, fields=["request_context"])
        assert partial is not None
        assert (partial.input, partial.request_context) == (None, record.request_context)


@pytest.mark.parametrize("key", [OLD, OLD.encode(), SecretStr(OLD), [SecretStr(OLD)], (OLD,), [NEW, OLD]])
def test_a_key_may_be_a_secret_of_a_library(key: Any) -> None:
    settings = Settings(secret_key=key, **MARKED)
    assert settings.reveal_secret_keys()[-1] == OLD
    assert OLD not in repr(settings) + repr(dataclasses.asdict(settings)) + repr(vars(type(settings)))


@pytest.mark.parametrize("key", ["x", ["long enough", "y"], 5, [None], {"a": 1}])
def test_a_key_that_is_none_is_refused_without_showing_it(key: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="orchestrator_secret_key"):
        Settings(secret_key=key)


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, shown",
    [
        (f"redis://:{PASSWORD}@host:6379/0", "redis://:***@host:6379/0"),
        (f"amqp://user:{PASSWORD}@host//", "amqp://user:***@host//"),
        (f"amqp://u:{PASSWORD}@a//;amqp://v:{PASSWORD};@b//", "amqp://u:***@a//;amqp://v:***@b//"),
        (f"sentinel://:{PASSWORD}@a:1;sentinel://:{PASSWORD}@b:2", "sentinel://:***@a:1;sentinel://:***@b:2"),
        (f"redis+sentinel://:{PASSWORD}@a:1,b:2/0?master_name=m", "redis+sentinel://:***@a:1,b:2/0?master_name=m"),
        ("redis+sentinel://a:1/0?sentinel_password=s3cret", "redis+sentinel://a:1/0?sentinel_password=***"),
        (f"redis+cluster://u:{PASSWORD}@a:1,b:2", "redis+cluster://u:***@a:1,b:2"),
        ("postgresql://u@h/db?password=s3cret&sslmode=require", "postgresql://u@h/db?password=***&sslmode=require"),
        ("sqlite:////tmp/a@b/runs.db", "sqlite:////tmp/a@b/runs.db"),
        ("memory://", "memory://"),
        ("no url at all", "no url at all"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    """Whatever characters they have, and however many URLs there are."""
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    "scheme",
    ["redis", "redis+sentinel", "sentinel", "redis+cluster", "rediss", "postgresql", "postgresql+psycopg", "mysql"],
)
@pytest.mark.parametrize("password", [PASSWORD, "a/b@c", "a#b", "a@b", "a:b@c/d", "a?b@c"])
def test_no_error_shows_a_password_that_is_not_escaped(scheme: str, password: str) -> None:
    """It is refused, or the store is named without it."""
    try:
        store: Any = open_store(f"{scheme}://user:{password}@127.0.0.1:1/0{'?master_name=m' * ('sentinel' in scheme)}")
        shown = [repr(store), str(getattr(store, "_connections", None) and store._connections.__dict__.get("shown"))]
        if isinstance(store, RedisStore):
            store._connections._retries = 0
            store.now()
        if isinstance(store, SqlStore):
            shown.append(store.url)
    except (ValueError, StoreUnavailable) as error:
        shown = [str(error), repr(getattr(error, "details", "")), repr(error.__cause__)]
    parts = {password, *(part for part in password.replace("/", "@").replace("#", "@").split("@") if len(part) > 3)}
    assert not [part for part in parts for text in shown if part in text]


# --- rotation --------------------------------------------------------------------------------------------------------


@step
def gate(x: Any, ctx: Context) -> Any:
    return [ctx.request_context["token"], x] if ctx.resumed else ctx.suspend()


gated = Workflow("gated").then(gate).commit()


def _start(url: str, key: Any) -> str:
    with Orchestrator(store=url, workflows=[gated], secret_key=key, **MARKED) as orchestrator:
        run = orchestrator.create_run(gated)
        assert run.start(1, request_context={"token": TOKEN}).status == "suspended"
        return run.run_id


def _resume(url: str, run_id: str, key: Any) -> Any:
    with Orchestrator(store=url, workflows=[gated], secret_key=key, **({} if key is None else MARKED)) as orchestrator:
        return orchestrator.get_run(run_id).resume({}, timeout=10).result


def test_the_newest_key_writes_and_each_reads(tmp_path: Path) -> None:
    """The three steps of a rotation: read both, write the new one, drop the old one."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    assert _resume(url, _start(url, OLD), [OLD, NEW]) == [TOKEN, 1]
    assert _resume(url, _start(url, [OLD, NEW]), [NEW, OLD]) == [TOKEN, 1]
    assert _resume(url, _start(url, [NEW, OLD]), [OLD, NEW]) == [TOKEN, 1]
    assert _resume(url, _start(url, [NEW, OLD]), NEW) == [TOKEN, 1]


@pytest.mark.parametrize("key", [None, "another key altogether"])
def test_a_run_outlives_a_process_that_has_another_key(tmp_path: Path, key: Any) -> None:
    """A caller that would have to go on with it itself is refused, and nothing is written."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    run_id = _start(url, OLD)
    with pytest.raises(SecretUnavailable, match="orchestrator_secret_key"):
        _resume(url, run_id, key)
    assert _resume(url, run_id, OLD) == [TOKEN, 1]


def test_a_worker_that_has_another_key_parks_the_step(caplog: pytest.LogCaptureFixture) -> None:
    """For a while, with a line in the log, and without an attempt that counts; another worker goes on."""
    store = open_store("memory://")

    @step
    def use(x: int, ctx: Context) -> Any:
        return ctx.request_context["token"]

    using = Workflow("using").then(use).commit()
    with Orchestrator(store=store, workflows=[using], secret_key=OLD, **MARKED) as mine:
        run = mine.create_run(using)
        client, held = mine.client.executor, threading.Event()
        client.runtime.publish = lambda header, dispatches: held.set()  # type: ignore[method-assign]
        header = run._start(run_start(1, {"token": TOKEN}))
        assert held.is_set()
        with Orchestrator(store=store, workflows=[using], secret_key="of another deployment", **MARKED) as other:
            seq = store.load(run.run_id, ["0"])[0].seq
            assert other.executor.execute(run.run_id, "0", seq) is None
        (parked,) = store.load(run.run_id, ["0"])
        assert (parked.status, parked.attempt, parked.abandoned_attempts) == ("retrying", 0, 0)
        assert "cannot be decrypted" in parked.parked
        assert f"run {run.run_id} of using is parked" in caplog.text
        assert header.run_id == run.run_id
        assert TOKEN not in caplog.text


def run_start(value: Any, context: dict[str, Any]) -> Any:
    """Return the options of a start."""
    from orchestrator.engine.client_ops import StartOptions

    return StartOptions(value, None, context)


def test_a_ciphertext_is_of_one_run_and_one_key() -> None:
    """Whoever may write the store can copy it, and gains nothing by that."""
    contexts = Contexts(Settings(secret_key=OLD, secret_context_keys=["token", "card"]))
    stored = {key: text for key, text in contexts.encode_all("run", {"token": TOKEN}).items() if text is not None}
    assert contexts.read("run", stored) == {"token": TOKEN}
    for run_id, key in (("other", "token"), ("run", "card"), ("run", "plain")):
        with pytest.raises(SecretUnavailable, match="another run or key"):
            contexts.read(run_id, {key: stored["token"]})


def test_a_long_secret_is_compressed_before_it_is_encrypted() -> None:
    """Afterwards nothing makes it shorter."""
    contexts = Contexts(Settings(secret_key=OLD, compress_above_bytes=1_000, **MARKED))
    secret = "all the same " * 10_000
    stored = contexts.encode_all("run", {"token": secret})["token"]
    assert stored is not None
    assert len(stored) < len(secret) / 20
    assert contexts.read("run", {"token": stored}) == {"token": secret}
    assert contexts.patch("run", {"token": stored}, {"token": secret}) == {}
