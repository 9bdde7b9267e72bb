"""R-EAT, R-ERI: a secret of the request context reaches every step and nothing else; its user stays with a run."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from orchestrator import Orchestrator, SecretUnavailable
from orchestrator.stores import open_store
from tests.parity import calls as notes
from tests.parity.calls import calls
from tests.parity.flows import robust_context as flows
from tests.parity.harness import Harness, seen
from tests.parity.robust import HookedStore, Own, stored

# Celery calls a method that the Redis client has deprecated, and a worker of this process does so here.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

GIVEN = "Bearer given-at-the-start"
FRESH = "Bearer fresh-at-the-resume"
SECRETS: dict[str, Any] = {"secret_context_keys": [flows.SECRET], "secret_key": "the key of the tests"}


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "kept"])
@pytest.mark.parity("R-EAT-01")
def test_a_secret_reaches_every_step_and_no_storage(
    runtime: Harness, fresh: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a log, an event or a lookup; a resume may bring a fresh one, and need not. Other keys are stored in clear.

    It is written where it changes, and nowhere else, though a cipher never looks the same twice.
    """
    changes: list[Any] = []
    own = Own(runtime, lambda store: HookedStore(store, lambda _, change: changes.append(change)), SECRETS)
    token = FRESH if fresh else GIVEN

    with caplog.at_level(logging.DEBUG), own.host() as orchestrator:
        run = orchestrator.create_run(flows.carrying)
        started = run.start({}, request_context={flows.SECRET: GIVEN, "tenant": "acme"}, timeout=10)
        assert started.status == "suspended"
        result = run.resume(data={}, request_context={flows.SECRET: FRESH} if fresh else None, timeout=10)
        events = [repr(seen(event)) for event in run.events()]
        looked_up = [repr(run.header()), repr(orchestrator.runs.get(run.run_id)), repr(orchestrator.settings)]
        looked_up.append(repr(orchestrator.runs.list(workflow=flows.carrying)))
        kept = orchestrator.store.context(run.run_id)

    assert result.status == "success"
    before = {name: calls(run.run_id, name) for name in ("plain", "left", "right", "condition", "arm", "nested")}
    assert before == {name: [GIVEN] for name in before}
    assert calls(run.run_id, "item") == [GIVEN, GIVEN]
    assert calls(run.run_id, "gate") == [GIVEN, token]
    assert calls(run.run_id, "resumed") == [token]
    assert calls(run.run_id, "last") == ["Bearer renewed-by-a-step"]
    assert calls(run.run_id, "on_finish") == [["suspended", GIVEN], ["success", "Bearer renewed-by-a-step"]]
    assert set(kept) == {flows.SECRET, "tenant", "seen"}
    assert sum(flows.SECRET in change.context for change in changes) == (3 if fresh else 2)
    written = [repr(change) for change in changes]
    everything = "\n".join([*written, *events, *looked_up, *kept.values(), caplog.text])
    assert "Bearer" not in everything
    assert "acme" in "\n".join(written)
    assert SECRETS["secret_key"] not in everything


@pytest.mark.parity("R-EAT-01")
def test_a_key_cannot_be_marked_secret_without_a_key_to_encrypt_with() -> None:
    """The orchestrator does not begin, and says what is missing."""
    with pytest.raises(SecretUnavailable, match="orchestrator_secret_key"):
        Orchestrator(secret_context_keys=["token"])
    with pytest.raises(TypeError, match="list"):
        Orchestrator(secret_context_keys="token", secret_key="a key of tests")


@pytest.mark.parametrize("theirs", [{}, {"secret_key": "another key"}], ids=["none", "another"])
@pytest.mark.parity("R-EAT-01")
def test_a_host_without_the_right_key_leaves_the_run_alone(
    theirs: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which key of the request context it cannot read; the step is not called, and the right host goes on."""
    monkeypatch.setenv(notes.FOLDER, str(tmp_path))
    store = open_store("memory://")
    with Orchestrator(store=store, workflows=[flows.carrying], **SECRETS) as orchestrator:
        run_id = orchestrator.create_run(flows.carrying).run_id
        context = {flows.SECRET: GIVEN, "tenant": "acme"}
        assert orchestrator.get_run(run_id).start({}, request_context=context).status == "suspended"
    with Orchestrator(store=store, workflows=[flows.carrying], **theirs) as other:
        with pytest.raises(SecretUnavailable, match=flows.SECRET) as refused:
            other.get_run(run_id).resume(data={})
        assert other.get_run(run_id).status == "suspended"

    assert "Bearer" not in str(refused.value)
    assert calls(run_id, "gate") == [GIVEN]
    with Orchestrator(store=store, workflows=[flows.carrying], **SECRETS) as orchestrator:
        assert orchestrator.get_run(run_id).resume(data={}).status == "success"


@pytest.mark.parametrize(
    "options, whose",
    [
        pytest.param({"resource_id": "given"}, "given", marks=pytest.mark.parity("R-ERI-01"), id="given"),
        pytest.param(
            {"request_context": {"resource_id": "in-context"}},
            "in-context",
            marks=pytest.mark.parity("R-ERI-02"),
            id="in-context",
        ),
        pytest.param(
            {"resource_id": "given", "request_context": {"resource_id": "in-context"}},
            "in-context",
            marks=pytest.mark.parity("R-ERI-03"),
            id="both",
        ),
    ],
)
def test_whom_a_run_is_for_is_stored(runtime: Harness, options: dict[str, Any], whose: str) -> None:
    """As it was given, or as the request context says, which counts more."""
    run_id = runtime.start(flows.resource, {}, **options).run_id

    assert stored(runtime, run_id).resource_id == whose
    assert calls(run_id, "whose") == [whose]
    assert [run.run_id for run in runtime.runs.list(resource_id=whose, limit=1).runs] == [run_id]


@pytest.mark.parity("R-ERI-04")
def test_whom_a_run_is_for_is_kept_over_a_resume(runtime: Harness) -> None:
    """The caller that resumes does not say it again."""
    run_id = runtime.start(flows.resource, {}, resource_id="order-7").run_id

    result = runtime.resume(flows.resource, run_id, {})

    assert result.result == "order-7"
    assert stored(runtime, run_id).resource_id == "order-7"
