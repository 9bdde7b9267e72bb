"""Compressed values: they come back as they were, mix with others, and never grow without bound."""

from __future__ import annotations

import base64
import sys
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import Context, Orchestrator, Workflow, step
from orchestrator.codec import Packing, decode, encode, encode_packed, unpack
from orchestrator.codec import packing as module
from orchestrator.codec.packing import MAX_UNPACKED, ZLIB, ZSTD
from orchestrator.engine.settings import Settings
from orchestrator.errors import CompressionUnavailable, ValueNotReadable
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import VirtualClock

texts = st.text() | st.text(st.sampled_from("ab\ud800\udc00ж\0~")) | st.text("ab").map(lambda text: text * 100)
methods = st.sampled_from([ZLIB, ZSTD])


@given(texts, methods, st.sampled_from([1, 10, 400]))
def test_every_text_comes_back(text: str, method: str, threshold: int) -> None:
    """Also one with lone surrogates; none begins as a compressed one does, for JSON begins otherwise."""
    stored = Packing(threshold=threshold, method=method).pack(f'"{text}')
    assert unpack(stored) == f'"{text}'
    assert len(stored) <= max(len(text) + 1, len(f'"{text}'.encode("utf-8", "surrogatepass")))


@given(st.lists(texts | st.integers(), max_size=5) | st.dictionaries(st.text(), texts, max_size=5))
def test_every_value_comes_back(value: Any) -> None:
    assert decode(encode_packed([value], "it", Packing(threshold=1))) == decode(encode([value]))


def test_what_does_not_get_shorter_stays_as_it_is() -> None:
    assert Packing(threshold=1).pack('"short"') == '"short"'
    assert Packing(threshold=0).pack("a" * 10_000) == "a" * 10_000
    assert Packing(threshold=10_001).pack("a" * 10_000) == "a" * 10_000
    assert len(Packing(threshold=10_000).pack("a" * 10_000)) < 100


def test_other_scripts_are_not_written_as_escapes() -> None:
    text = "пожалуйста 午前中 😀" * 100
    assert len(encode(text).encode()) < len(text.encode()) + 30


def _pack(letter: str, data: bytes) -> str:
    return f"~{letter}{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("method", [ZLIB, ZSTD])
def test_a_bomb_is_refused(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that stand for gigabytes: nobody makes more of them than a value may be."""
    monkeypatch.setattr(module, "MAX_UNPACKED", 100_000)
    data = b"a" * 50_000_000
    bomb = zlib.compress(data) if method == ZLIB else module._zstandard().ZstdCompressor().compress(data)
    with pytest.raises(ValueNotReadable, match="longer than 100000 bytes|too much memory"):
        decode(_pack("z" if method == ZLIB else "s", bomb))
    assert unpack(_pack("z", zlib.compress(b"a" * 100_000))) == "a" * 100_000


def test_no_writer_makes_what_no_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED", 1_000)
    assert Packing(threshold=1).pack("a" * 1_001) == "a" * 1_001
    assert MAX_UNPACKED == 64 * 1024 * 1024


@pytest.mark.parametrize(
    "stored",
    ["~", "~q", "~zäöü", "~z!!", _pack("z", b"no zlib"), _pack("z", zlib.compress(b"a" * 99)[:-3]), _pack("s", b"no"),
     _pack("z", zlib.compress(b"\xff\xfe"))],
)  # fmt: skip
def test_what_nobody_packed_is_an_error_of_the_codec(stored: str) -> None:
    with pytest.raises(ValueNotReadable):
        decode(stored)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By who would write with it, at the start; by who would read, as a value that cannot be read here."""
    stored = Packing(threshold=1, method=ZSTD).pack("a" * 1_000)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"celery-orchestrator\[zstd\]"):
        Settings(compression=ZSTD)
    with pytest.raises(ValueNotReadable, match=r"celery-orchestrator\[zstd\]"):
        decode(stored)


@step
def look_back(data: Any, ctx: Context) -> int:
    """Reads what its claim does not bring."""
    return len(ctx.result("first"))


first = step(lambda data: data, id="first")
looking = Workflow("looking").then(first).then(step(lambda data: 1, id="one")).then(look_back).commit()
reading = Workflow("reading").then(first).then(step(len, id="measure")).commit()


@pytest.mark.parametrize("flow", [reading, looking], ids=["input", "on demand"])
def test_a_worker_without_the_package_parks_the_step(
    flow: Workflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one has it: a failure would be for good, and for nothing."""
    last, held, store = f"{len(flow.compiled.flow) - 1}", list[Any](), MemoryStore(VirtualClock())
    settings: dict[str, Any] = {"store": store, "workflows": [flow], "local_threads": 0}
    with Orchestrator(**settings, compression=ZSTD, compress_above_bytes=1) as mine, Orchestrator(**settings) as other:
        runtime, publish = mine.client.runtime, mine.client.runtime.publish

        def hold_last(header: Any, dispatches: Any, **options: Any) -> None:
            held.extend(each for each in dispatches if each.path == last)
            publish(header, [each for each in dispatches if each.path != last], **options)

        monkeypatch.setattr(runtime, "publish", hold_last)
        run = mine.create_run(flow).submit("a" * 5_000)
        monkeypatch.setattr(other.client.runtime, "is_shared", True)  # as on workers
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "zstandard", None)
            assert other.executor.execute(run.run_id, last, held[0].seq) is None
        (parked,) = store.load(run.run_id, [last])
        assert (parked.status, parked.attempt, parked.abandoned_attempts) == ("retrying", 0, 0), caplog.text
        assert "celery-orchestrator[zstd]" in parked.parked
        assert f"run {run.run_id} of {flow.id} is parked" in caplog.text
        monkeypatch.setattr(runtime, "publish", publish)
        store.clock.sleep(60)
        assert mine.executor.execute(run.run_id, last, parked.seq) is not None
        assert run.result(timeout=10).result == 5_000


def test_a_process_that_is_alone_and_lacks_the_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would come: the caller gets the error, and a process that has the package restarts the run."""
    with Orchestrator(workflows=[reading], compression=ZSTD, compress_above_bytes=1, local_threads=0) as orchestrator:
        run = orchestrator.create_run(reading)
        with monkeypatch.context() as without:
            without.setattr(orchestrator.client.runtime, "drive_in_background", lambda run_id: None)
            run.submit("a" * 5_000)
            without.setitem(sys.modules, "zstandard", None)
            with pytest.raises(CompressionUnavailable, match=r"celery-orchestrator\[zstd\]"):
                run.result(timeout=10)
        assert run.status == "running"
        assert run.restart().result == 5_000


@step
def grow(given: Any, ctx: Context) -> Any:
    """Put the input everywhere, and return what was there before."""
    before = ctx.state.get("all"), ctx.request_context.get("all")
    ctx.set_state({"all": given})
    ctx.request_context["all"] = given
    ctx.write(given)
    return [given, before] if ctx.resumed else ctx.suspend(given)


growing = Workflow("growing").then(grow).foreach(step(lambda x: x, id="each")).commit()


@pytest.mark.parametrize("settings", [{"compress_above_bytes": 0}, {"compression": ZLIB}, {"compression": ZSTD}])
def test_values_are_compressed_wherever_they_are_stored(settings: dict[str, Any]) -> None:
    """And processes that write in other ways read them, and change nothing that has not changed."""
    store = f"memory://{settings}"
    given = ["ж" * 30_000, {"rows": [{"id": n, "text": "the same words"} for n in range(1_000)]}]
    with Orchestrator(store=store, workflows=[growing], **settings) as orchestrator:
        run = orchestrator.create_run(growing)
        assert run.start(given, state={"all": given}, request_context={"all": given}).status == "suspended"
        kept = orchestrator.store.state(run.run_id) | orchestrator.store.context(run.run_id)
        assert {text[0] for text in kept.values()} == ({"{"} if "compression" not in settings else {"~"})
    with Orchestrator(store=store, workflows=[growing], compress_above_bytes=1) as other:
        result = other.get_run(run.run_id).resume({"more": "x" * 100})
        assert result.result == [given, [given, given]]
        assert result.state == {"all": given}
        written = [event.payload["output"] for event in run.events() if event.type == "workflow-step-output"]
        assert written == [given, given]
        assert other.store.state(run.run_id)["all"] == kept["all"]
