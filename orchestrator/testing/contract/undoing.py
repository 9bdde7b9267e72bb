"""The needs of an undo, and of runs that come to belong to others."""

from __future__ import annotations

from typing import Any

from orchestrator.host import new_token
from orchestrator.ports import Store
from orchestrator.rules.apply import ENDED_RUN, MOVED
from orchestrator.rules.change import Change, CreateActivation, RequestGuard, UpdateActivation, UpdateRun
from orchestrator.rules.model import ActivationStatus
from orchestrator.testing.contract.kit import (
    ACTIVE,
    LEASE,
    LONG,
    Conditions,
    StartedRun,
    an_activation,
    committed_of,
)


class Undoing(Conditions):
    """The needs of an undo, and of runs that come to belong to others."""

    def test_a_change_of_a_run_in_which_nothing_may_have_happened_is_refused_after_anything(self, store: Store) -> None:
        """Also after upkeep, which is counted too."""
        run = StartedRun(store, an_activation("1"))
        commits = run.header.commits
        committed_of(store.commit(run.id, Change(RequestGuard("", ACTIVE, commits=commits))))
        assert run.refused(Change(RequestGuard(new_token(), ACTIVE, commits=commits))) == MOVED
        committed_of(store.commit(run.id, Change(RequestGuard(new_token(), ACTIVE, commits=commits + 1))))

    def test_a_request_that_was_undone_is_not_said_to_stand(self, store: Store) -> None:
        """Neither at once, nor after another request; the undo itself is a request like others."""
        run = StartedRun(store)
        for others in (0, 1, 2):
            request, undo = (
                Change(RequestGuard(new_token(), ACTIVE), values={"v": "=1"}),
                RequestGuard(new_token(), ACTIVE),
            )
            committed_of(store.commit(run.id, request))
            for _ in range(others):
                committed_of(store.commit(run.id, Change(RequestGuard(new_token(), ACTIVE))))
            assert isinstance(request.guard, RequestGuard)
            undone = Change(RequestGuard(undo.id, ACTIVE, undoes=request.guard.id))
            commits = committed_of(store.commit(run.id, undone)).header.commits
            assert committed_of(store.commit(run.id, undone)).header.commits == commits
            for _ in range(2):
                assert run.refused(request) == ENDED_RUN
                committed_of(store.commit(run.id, Change(RequestGuard(new_token(), ACTIVE))))

    def test_values_go_before_others_are_written(self, store: Store) -> None:
        """An id that is dropped and written has the new text; one that is not there is no obstacle."""
        run = StartedRun(store)
        run.commit_request(values={"a": "=1", "b": "=2", "c": "=3"})
        run.commit_request(drop_values=("a", "b", "none"), values={"b": "=4", "c": "=5"})
        assert store.values(run.id, ["a", "b", "c"]) == {"b": "=4", "c": "=3"}

    def test_a_log_that_is_emptied_begins_anew(self, store: Store) -> None:
        """The events of the same change are the first of it, and nothing marks a gap."""
        run = StartedRun(store)
        run.commit_request(events=({"type": "old"}, {"type": "older"}))
        run.commit_request(drop_events=True)
        assert store.events(run.id) == []
        assert store.events(run.id, store.last_event(run.id)) == []
        run.commit_request(events=({"type": "gone"},))
        run.commit_request(drop_events=True, events=({"type": "new"},))
        run.commit_request(events=({"type": "newer"},), max_events=100, max_event_age=LONG)
        assert [doc["type"] for doc in run.event_docs()] == ["new", "newer"]
        assert [event.doc["type"] for event in store.events(run.id, store.events(run.id)[0].id)] == ["newer"]

    def test_a_run_takes_its_timers_along(self, store: Store) -> None:
        """To another namespace, out of the sight of all schedulers, and back: whichever activation the change names."""
        waiting = an_activation("1", status=ActivationStatus.SUSPENDED)
        run = StartedRun(store, waiting)
        for path in ("2", "3"):
            sleeping = an_activation(path, status=ActivationStatus.SLEEPING)
            run.commit_request(CreateActivation(sleeping), delay_of(sleeping))
        self.advance(store, 2 * LEASE)
        assert run.due_timers() == ["2", "3"]
        there, touches = f"{run.namespace}/there", (UpdateActivation("2", {}), UpdateActivation("3", {}))
        for runtime, namespace, found in (
            ("", there, ["2", "3"]),
            ("local", there, []),
            ("celery", run.namespace, ["2", "3"]),
            ("local", run.namespace, []),
        ):
            fields: Any = {"runtime": runtime, "namespace": namespace}
            run.commit_request(UpdateRun(fields), *touches)
            due = {space: paths_of(store, space) for space in (run.namespace, there)}
            assert due == {run.namespace: [], there: [], namespace: found}


def delay_of(activation: Any) -> UpdateActivation:
    """Let the activation's moment come after a while."""
    return UpdateActivation(activation.path, {}, delay=LEASE)


def paths_of(store: Store, namespace: str) -> list[str]:
    """Return the paths of what is due in this namespace."""
    return sorted(due.activation.path for due in store.due_timers(namespace))
