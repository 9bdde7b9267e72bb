"""An application is put together once: all parts have the same store, and nothing is changed afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestrator import Orchestrator, Run, Workflow, step
from orchestrator.canvas.publication import PublishingStore
from orchestrator.canvas.runtime import CeleryRuntime
from orchestrator.canvas.waking import BrokerWakeups
from orchestrator.engine.settings import Settings
from orchestrator.host import SystemClock
from orchestrator.local import LocalRuntime
from orchestrator.rules.change import Dispatch
from orchestrator.rules.model import RunHeader
from orchestrator.stores import MemoryStore
from orchestrator.stores.sql import SqlStore


@step
def double(number: int) -> int:
    return number * 2


doubling = Workflow("doubling", input=int).then(double).commit()


def an_app(**config: Any) -> Celery:
    """An app whose broker is never asked."""
    app = Celery("composed", broker="memory://", set_as_current=False)
    app.conf.update(config)
    return app


@pytest.mark.parametrize("publishes", [False, True])
def test_all_parts_have_the_same_store(tmp_path: Path, publishes: bool) -> None:
    """Also where its commits are published: else only some of them would be."""
    app = an_app(orchestrator_store=f"sqlite:///{tmp_path}/runs.db", orchestrator_publish_events=publishes)
    with Orchestrator(app) as orchestrator:
        assert orchestrator.store is orchestrator.client.store
        assert orchestrator.store is orchestrator.executor.store
        assert isinstance(orchestrator.store, PublishingStore) is publishes
        assert orchestrator.executor.runtime is orchestrator.client.runtime
        assert isinstance(orchestrator.client.runtime, CeleryRuntime)
    app.close()


def test_a_store_of_several_apps_keeps_its_first_channel(tmp_path: Path) -> None:
    """Readers of one store hear by one channel."""
    store = SqlStore(f"sqlite:///{tmp_path}/runs.db")
    apps = [an_app(), an_app()]
    channels = []
    for app in apps:
        with Orchestrator(app, store=store) as orchestrator:
            assert orchestrator.client.store  # the first use, by which it is composed
            channels.append(store._wakeups)
    assert isinstance(channels[0], BrokerWakeups)
    assert channels[0] is channels[1]
    for app in apps:
        app.close()
    store.close()


@pytest.mark.parametrize("eager", [False, True])
def test_an_app_in_eager_mode_gets_the_runtime_of_this_process(eager: bool) -> None:
    """And its workflows are tasks all the same."""
    app = an_app(task_always_eager=eager, orchestrator_store="memory://eager")
    with Orchestrator(app, workflows=[doubling]) as orchestrator:
        assert isinstance(orchestrator.client.runtime, LocalRuntime) is eager
        assert orchestrator.client.runtime.is_shared is not eager
        assert "doubling" in app.tasks
    app.close()


def test_a_runtime_without_an_engine_says_so() -> None:
    """Instead of leaving the run as it is, silently."""
    runtime = LocalRuntime(MemoryStore(), Settings(), SystemClock())
    runtime.publish(RunHeader(run_id="one", workflow_id="doubling"), [Dispatch("0", 1, "")])
    with pytest.raises(RuntimeError, match="has not been bound to an engine"):
        runtime.drive("one")
    assert isinstance(runtime.failure_of("one"), RuntimeError)
    runtime.close()


VERBS: dict[str, Callable[..., Any]] = {
    "start": Run.start,
    "submit": Run.submit,
    "stream": Run.stream,
    "astream": Run.astream,
    "resume": Run.resume,
    "submit_resume": Run.submit_resume,
    "resume_stream": Run.resume_stream,
    "time_travel": Run.time_travel,
    "submit_time_travel": Run.submit_time_travel,
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_keyword_that_a_verb_does_not_have_is_refused(verb: str) -> None:
    """By its name, before anything is done."""
    with Orchestrator(workflows=[doubling]) as orchestrator:
        run = orchestrator.create_run("doubling")
        with pytest.raises(TypeError, match=rf"^Run\.{verb}\(\) got an unexpected keyword argument 'pre_step'$"):
            VERBS[verb](run, "double", pre_step=True)
        assert run.status == "pending"
