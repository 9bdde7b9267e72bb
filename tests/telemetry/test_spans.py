"""One run is one trace, in which everything has its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from orchestrator import Context, InputInvalid, Orchestrator, Workflow, step
from tests.servers import RedisServer
from tests.telemetry.flows import breaking, checkout, winding
from tests.telemetry.listening import Trace

Exported = Callable[[], Trace]
ORDER = {"sku": "x"}

# All names of the run of `checkout`, with those of their parents.
CHECKOUT = {
    ("run checkout", None),
    ("step reserve", "run checkout"),
    ("parallel parallel_checkout_0", "run checkout"),
    ("step charge", "parallel parallel_checkout_0"),
    ("step notify", "parallel parallel_checkout_0"),
    ("parallel parallel_checkout_0: success", "parallel parallel_checkout_0"),
    ("workflow approval", "run checkout"),
    ("step ask", "workflow approval"),
    ("run checkout: suspended", "run checkout"),
    ("resume checkout", "run checkout"),
    ("step pack", "workflow approval"),
    ("workflow approval: success", "workflow approval"),
    ("step count", "run checkout"),
    ("run checkout: success", "run checkout"),
}


def test_a_run_is_one_trace_over_suspension_and_resume(orchestrator: Orchestrator, exported: Exported) -> None:
    """Parents are right although nothing but the store is between the two halves."""
    run = orchestrator.create_run(checkout)
    assert run.start(ORDER).status == "suspended"
    assert orchestrator.get_run(run.run_id).resume("yes").status == "success"

    found = exported()
    assert len(found.traces) == 1
    assert found.tree() == CHECKOUT


def test_the_span_of_a_caller_is_the_parent_of_the_run(orchestrator: Orchestrator, exported: Exported) -> None:
    """That of another caller, which resumes the run, becomes a link."""
    tracer = trace.get_tracer("caller")
    run = orchestrator.create_run(checkout)
    with tracer.start_as_current_span("request"):
        run.start(ORDER)
    with tracer.start_as_current_span("decision"):
        run.resume("yes")

    found = exported()
    assert found.parent(found["run checkout"]) == "request"
    assert {span.trace for span in found.of_run().spans} == {found["request"].trace}
    assert found["decision"].trace != found["request"].trace
    assert found["decision"].id in found["resume checkout"].links
    assert found["decision"].id in found["step pack"].links


def test_every_attempt_has_a_span_and_an_error_is_recorded(orchestrator: Orchestrator, exported: Exported) -> None:
    """The run is none the worse for the first."""
    orchestrator.create_run(checkout).start(ORDER)

    first, second = exported().all("step charge")
    assert (first.status, first["status"], first.events) == ("ERROR", "retrying", ["exception", "retry"])
    assert (second.status, second["status"], second.events) == ("UNSET", "success", [])
    assert (first["attempt"], second["attempt"]) == (0, 1)


def test_a_suspended_step_ends_with_an_event(orchestrator: Orchestrator, exported: Exported) -> None:
    """The one that is resumed has a span of its own."""
    run = orchestrator.create_run(checkout)
    run.start(ORDER)
    run.resume("yes")

    first, second = exported().all("step ask")
    assert (first["status"], first.events, first["resumed"]) == ("suspended", ["suspended"], None)
    assert (second["status"], second.events, second["resumed"]) == ("success", [], True)


def test_spans_say_of_what_they_are(orchestrator: Orchestrator, exported: Exported) -> None:
    """Ids, place, visit, attempt and status."""
    run = orchestrator.create_run(winding, resource_id="customer")
    run.start(0)

    found = exported()
    assert found.all("step count")[1].attributes == {
        "orchestrator.run.id": run.run_id,
        "orchestrator.workflow.id": "winding",
        "orchestrator.resource.id": "customer",
        "orchestrator.step.id": "count",
        "orchestrator.component": "STEP",
        "orchestrator.path": "0.0",
        "orchestrator.visit": "2",
        "orchestrator.attempt": 0,
        "orchestrator.status": "success",
    }
    assert sorted(span["index"] for span in found.all("step each")) == [0, 1, 2]  # two are at work side by side


def test_loops_branches_sleeps_and_waits(orchestrator: Orchestrator, exported: Exported) -> None:
    """Each condition is a child; what takes its time has it as its duration."""
    run = orchestrator.create_run(winding)
    run.start(0)
    run.send_event("paid", 3)
    assert run.result().status == "success"

    found = exported()
    assert len(found.traces) == 1
    assert found.tree() == {
        ("run winding", None),
        ("loop loop_winding_0", "run winding"),
        ("step count", "loop loop_winding_0"),
        ("condition", "loop loop_winding_0"),
        ("loop loop_winding_0: success", "loop loop_winding_0"),
        ("branch branch_winding_0", "run winding"),
        ("condition 0", "branch branch_winding_0"),
        ("condition 1", "branch branch_winding_0"),
        ("step large", "branch branch_winding_0"),
        ("branch branch_winding_0: success", "branch branch_winding_0"),
        ("map mapping_winding_0", "run winding"),
        ("foreach each", "run winding"),
        ("step each", "foreach each"),
        ("foreach each: success", "foreach each"),
        ("sleep sleep_winding_0", "run winding"),
        ("wait paid", "run winding"),
        ("run winding: suspended", "run winding"),
        ("run winding: success", "run winding"),
    }
    assert [span["condition"] for span in found.all("condition")] == [False, True]
    assert [found["condition 0"]["condition"], found["condition 1"]["condition"]] == [True, False]
    assert found["sleep sleep_winding_0"].end - found["sleep sleep_winding_0"].begin >= 10_000_000


def test_the_redis_store_keeps_the_parents(redis_server: RedisServer, exported: Exported) -> None:
    """Its scripts know nothing of them."""
    with Orchestrator(store=redis_server.url(9), workflows=[winding]) as orchestrator:
        orchestrator.create_run(winding).start(0)

    found = exported()
    assert len(found.traces) == 1
    assert {("step count", "loop loop_winding_0"), ("step large", "branch branch_winding_0")} <= found.tree()
    assert [found.parent(span) for span in found.all("step each")] == ["foreach each"] * 3


def test_an_error_is_seen_on_every_level(orchestrator: Orchestrator, exported: Exported) -> None:
    """The step, the nested workflow and the run are errors, and only their openings are not."""
    orchestrator.create_run(breaking).start()

    wrong = {span.name for span in exported().spans if span.status == "ERROR"}
    assert wrong == {"step break_down", "workflow inside: failed", "run breaking: failed"}


def test_a_hook_that_refuses_the_start_ends_the_run_as_an_error(exported: Exported) -> None:
    """Nothing else is told of it."""

    def refuse(info: object) -> None:
        raise PermissionError("not you")

    refused = Workflow("refused", on_start=refuse).map(lambda data: data).commit()
    with Orchestrator(workflows=[refused]) as orchestrator, pytest.raises(PermissionError):
        orchestrator.create_run(refused).start()

    (span,) = exported().spans
    assert (span.name, span.status, span.events) == ("run refused", "ERROR", ["exception"])


def test_input_that_does_not_fit_ends_the_run_as_an_error(exported: Exported) -> None:
    """As it is for the caller."""
    strict = Workflow("strict", input=int).map(lambda data: data).commit()
    with Orchestrator(workflows=[strict]) as orchestrator, pytest.raises(InputInvalid):
        orchestrator.create_run(strict).start("no number")

    assert [(span.name, span.status) for span in exported().spans] == [("run strict", "ERROR")]


def test_a_canceled_run_has_its_closing(orchestrator: Orchestrator, exported: Exported) -> None:
    """It does not matter which process canceled it."""
    run = orchestrator.create_run(checkout)
    run.start(ORDER)
    run.cancel()

    closing = exported()["run checkout: canceled"]
    assert (closing["status"], closing.status) == ("canceled", "UNSET")


def test_a_time_travel_stays_in_the_trace(orchestrator: Orchestrator, exported: Exported) -> None:
    """Blocks on the way to the target are opened again."""
    run = orchestrator.create_run(checkout)
    run.start(ORDER)
    run.resume("yes")
    run.time_travel("approval.pack")

    found = exported()
    assert len(found.traces) == 1
    assert ("travel checkout", "run checkout") in found.tree()
    assert found.all("step pack")[1].parent == found.all("workflow approval")[1].id


def test_a_run_that_began_unheard_is_one_trace_from_then_on(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, exported: Exported
) -> None:
    """The client had no SDK, the workers have."""
    run = orchestrator.create_run(checkout)
    with monkeypatch.context() as before:
        before.setattr(trace, "_TRACER_PROVIDER", None)
        run.start(ORDER)
    assert exported().spans == []
    run.resume("yes")

    found = exported()
    assert len(found.traces) == 1
    assert ("step pack", "run checkout") in found.tree()
    assert ("resume checkout", "run checkout") in found.tree()


def test_user_code_sees_the_step_s_span(exported: Exported) -> None:
    """The spans that it makes are below that, in async code too."""

    @step
    async def work(data: object, ctx: Context) -> None:
        ctx.span.set_attribute("mine", 1)
        with trace.get_tracer("user").start_as_current_span("query"):
            pass

    working = Workflow("working").then(work).commit()
    with Orchestrator(workflows=[working]) as orchestrator:
        orchestrator.create_run(working).start()

    found = exported()
    assert found["step work"].attributes["mine"] == 1
    assert ("query", "step work") in found.tree()


def test_what_is_not_sampled_is_not_sampled_later(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, exported: Exported
) -> None:
    """The decision is made at the start, and stored with the run."""
    never = TracerProvider(sampler=ALWAYS_OFF)
    run = orchestrator.create_run(checkout)
    with monkeypatch.context() as before:
        before.setattr(trace, "_TRACER_PROVIDER", never)
        run.start(ORDER)
    run.resume("yes")

    assert exported().spans == []


def test_a_fault_of_the_sdk_is_none_of_the_run(orchestrator: Orchestrator, provider: TracerProvider) -> None:
    """The run goes on, whatever breaks there."""

    class Broken:
        def on_start(self, *_: object, **__: object) -> None:
            raise RuntimeError("broken")

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_, **__: None

    run = orchestrator.create_run(checkout)
    run.start(ORDER)
    provider.add_span_processor(Broken())  # type: ignore[arg-type]
    assert run.resume("yes").status == "success"
