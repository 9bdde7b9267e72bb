"""Workflows of the entries about nested workflows: R-ESP, R-NNS, R-NRL, R-NRR, R-NRS, R-NSS, R-PNR, R-FNW, R-EMR."""

from __future__ import annotations

from typing import Any

from orchestrator import Context, Workflow, from_input, step
from orchestrator.testing import WorkerLost
from tests.parity.calls import count, note

Data = dict[str, Any]
LOST = "lost"


def _be_lost_once(ctx: Context[Any]) -> None:
    """Leave everything as a killed worker would, the first time in this run."""
    if not count(ctx.run_id, LOST):
        note(ctx, LOST)
        raise WorkerLost


# ----------------------------------------------------------------------------- conditions of loops over them, R-ESP


@step(id="finish")
def finish(ctx: Context) -> Data:
    """Say that it is done."""
    note(ctx, "finish")
    return {"done": True}


@step(id="count")
def count_up(data: Data, ctx: Context) -> Data:
    """Add one."""
    note(ctx, "count")
    return {"count": data["count"] + 1}


_finish = Workflow("finishing").then(finish).commit()
_count = Workflow("counting").then(count_up).commit()

until_done = Workflow("robust-until-done").do_until(_finish, lambda data: data["done"]).commit()
until_two = Workflow("robust-until-two").do_until(_count, lambda data: data["count"] >= 2).commit()
while_below_two = Workflow("robust-while-below-two").do_while(_count, lambda data: data["count"] < 2).commit()
_loop = Workflow("loop").do_until(_count, lambda data: data["count"] >= 2).commit()
nested_loop = Workflow("robust-nested-loop").then(_loop).commit()


# ---------------------------------------------------------------------- ends that are not a success, R-NNS, R-PER


def abort_and_raise(data: Data, ctx: Context) -> bool:
    """End the run as canceled, and raise."""
    ctx.abort()
    raise ValueError("after the abort")


def raise_at_once(data: Data, ctx: Context) -> bool:
    """Raise."""
    raise ValueError("the condition raises")


def noted_step(step_id: str) -> Any:
    """Make a step that notes its call and hands its input on."""

    @step(id=step_id)
    def noting(data: Any, ctx: Context) -> Any:
        """Note the call."""
        note(ctx, step_id, data)
        return data

    return noting


after = noted_step("after")
_aborting = Workflow("aborting").do_until(count_up, abort_and_raise).commit()
aborting = Workflow("robust-nested-aborting").then(_aborting).then(after).commit()
_raising = Workflow("raising").do_until(count_up, raise_at_once).commit()
raising = Workflow("robust-nested-raising").then(_raising).then(after).commit()
_two = Workflow("two").then(noted_step("one")).then(noted_step("two")).commit()
two_steps = Workflow("robust-nested-two").then(_two).then(after).commit()


# ------------------------------------------------------------------------------ workers that are lost, R-EMR, R-NRS


@step(id="outer")
def outer_step(data: Data, ctx: Context) -> Data:
    """Note the call, and write a key of the state."""
    note(ctx, "outer")
    ctx.set_state({"outer": 1})
    return {"value": data["value"] + 1}


@step(id="writes")
def write_state(data: Data, ctx: Context) -> Data:
    """Write into the state."""
    note(ctx, "writes")
    ctx.set_state({"inner": data["value"], "who": "writes"})
    return data


@step(id="inner")
def be_lost_inside(data: Data, ctx: Context) -> Data:
    """Be lost once."""
    _be_lost_once(ctx)
    note(ctx, "inner", data)
    ctx.set_state({"late": True})
    return {"value": data["value"] * 10}


@step(id="last")
def tell_state(data: Data, ctx: Context) -> Data:
    """Return the state."""
    note(ctx, "last")
    return dict(ctx.state)


_inside = Workflow("inside").then(write_state).then(be_lost_inside).commit()
lost_inside = Workflow("robust-nested-lost", auto_restart=False).then(outer_step).then(_inside).then(tell_state)
lost_inside.commit()


def _writer(name: str) -> Workflow:
    @step(id="write")
    def write(data: Data, ctx: Context) -> Data:
        """Write a key of its own, and one that the others write too."""
        note(ctx, "write", ctx.run_id)
        ctx.set_state({name: True, "last": name})
        return data

    return Workflow(name).then(write).commit()


lost_behind = Workflow("robust-nested-lost-behind", auto_restart=False).then(_writer("first")).then(_writer("second"))
lost_behind.then(be_lost_inside).then(tell_state).commit()


# --------------------------------------------------------------------------- labels, and lost resumptions, R-NRL, R-NRR


@step(id="gate")
def gate(data: Data, ctx: Context) -> Data:
    """Wait for a resume."""
    note(ctx, "gate", {"run": ctx.run_id, "data": ctx.resume_data})
    if not ctx.resumed:
        ctx.suspend({"question": "approve?"}, label="approval")
    return {"approved": ctx.resume_data}


@step(id="review")
def review(data: Data, ctx: Context) -> Data:
    """Wait for another resume."""
    if not ctx.resumed:
        ctx.suspend({"question": "reviewed?"}, label="review")
    return {"reviewed": ctx.resume_data}


_asking = Workflow("asking").then(gate).then(noted_step("behind")).commit()
asking = Workflow("robust-nested-asking").then(noted_step("before")).then(_asking).then(after).commit()
_asking_twice = Workflow("asking-twice").parallel(gate, review).commit()
asking_twice = Workflow("robust-nested-asking-twice").then(_asking_twice).commit()


@step(id="gate", resume=bool)
def be_lost_when_resumed(ctx: Context[bool]) -> Data:
    """Suspend, and be lost on the first resume."""
    if not ctx.resumed:
        ctx.suspend({"question": "approve?"})
    _be_lost_once(ctx)
    note(ctx, "resumed", ctx.resume_data)
    return {"approved": ctx.resume_data}


_answered = Workflow("answered").then(be_lost_when_resumed).commit()
_napping = Workflow("napping").sleep(1.0, id="nap").commit()
_beside_nap = Workflow("beside-nap").parallel(be_lost_when_resumed, _napping).commit()
RESUMED = {
    "running": Workflow("robust-nested-resumed", auto_restart=False).then(_answered).commit(),
    "waiting": Workflow("robust-nested-resumed-beside-nap", auto_restart=False).then(_beside_nap).commit(),
}
resumed_alone, resumed_beside_nap = RESUMED["running"], RESUMED["waiting"]


# --------------------------------------------------------------------------------------- init data inside, R-EID


def _told(step_id: str) -> Any:
    @step(id=step_id)
    def telling(data: Any, ctx: Context) -> Any:
        """Note the init data."""
        note(ctx, step_id, ctx.init_data)
        return data

    return telling


@step(id="pause")
def pause(data: Any, ctx: Context) -> Any:
    """Note the init data, before and after a suspension."""
    note(ctx, "pause", ctx.init_data)
    if not ctx.resumed:
        ctx.suspend({})
    return data


def width_of_init(ctx: Context) -> int:
    """Note the init data, and return the width that stands in it."""
    note(ctx, "width", ctx.init_data)
    return int(ctx.init_data["width"])


def once(data: Any, ctx: Context) -> bool:
    """Note the init data, and end the loop."""
    note(ctx, "until", ctx.init_data)
    return True


def _speaking(name: str) -> Workflow:
    flow = Workflow(name).map({"items": from_input("items"), "width": from_input("width")}).then(pause)
    flow.map(lambda ctx: ctx.init_data["items"]).foreach(_told("item"), concurrency=width_of_init)
    return flow.map(lambda ctx: {**ctx.init_data, "from": name}).do_until(_told("loop"), once)


_speaking_inside = _speaking("inner").commit()
init_data = _speaking("robust-init-data").then(_speaking_inside).commit()
