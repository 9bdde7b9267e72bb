"""Listing the runs that there are, and deleting them."""

from __future__ import annotations

from functools import partial
from typing import Any

from orchestrator.host import new_run_id, new_token
from orchestrator.ports import LeaseRef, RunQuery, StalePage, Store
from orchestrator.rules.apply import UNKNOWN
from orchestrator.rules.change import (
    Change,
    LeaseGuard,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.model import ActivationStatus, StoredStatus
from orchestrator.testing.contract.kit import (
    ACTIVE,
    EXTRAS,
    LEASE,
    Conditions,
    StartedRun,
    a_header,
    an_activation,
    committed_of,
    ops_to_create,
    reason_of,
)


def listed(store: Store, **query: Any) -> set[str]:
    """Return the ids of the runs that the query finds."""
    headers = store.runs(RunQuery(**query))
    ids = {header.run_id for header in headers}
    assert store.count_runs(RunQuery(**query)) == len(headers) == len(ids)
    assert all(header == store.header(header.run_id) for header in headers)
    return ids


def stale_pages(store: Store, before: int, **more: Any) -> list[list[str]]:
    """Return the ids of the runs that have failed and were last written before that moment, page by page."""
    pages, after = [], ""
    while True:
        page = store.stale_runs("failed", before, after, **more)
        pages.append([header.run_id for header in page.headers])
        assert all(header == store.header(header.run_id) for header in page.headers)
        after = page.after
        if not after:
            return pages


class Listing(Conditions):
    """Listing the runs that there are, and deleting them."""

    def test_runs_are_listed_newest_first_in_pages(self, store: Store) -> None:
        """A page holds headers as they are; all that match are counted."""
        mine = new_run_id()
        ids: list[str] = []
        for _ in range(5):
            ids.insert(0, StartedRun(store, an_activation("0"), workflow_id=mine).id)
            self.advance(store, 2)
        page = store.runs(RunQuery(workflow_id=mine, limit=2))
        assert page == [store.header(id_) for id_ in ids[:2]]
        page = store.runs(RunQuery(workflow_id=mine, limit=10, offset=3))
        assert [header.run_id for header in page] == ids[3:]
        assert store.runs(RunQuery(workflow_id=mine, limit=10, offset=9)) == []
        assert store.runs(RunQuery(workflow_id=mine, limit=0)) == []
        assert store.count_runs(RunQuery(workflow_id=mine, limit=2, offset=3)) == 5

    def test_what_happens_to_runs_does_not_change_their_order(self, store: Store) -> None:
        """The order goes by the moment of their creation."""
        mine = new_run_id()
        runs: list[StartedRun] = []
        for _ in range(3):
            runs.insert(0, StartedRun(store, an_activation("0"), workflow_id=mine))
            self.advance(store, 2)
        runs[2].commit_request(UpdateRun({"status": StoredStatus.FAILED}))
        runs[1].claim("0")
        assert [header.run_id for header in store.runs(RunQuery(workflow_id=mine))] == [run.id for run in runs]

    def test_runs_are_filtered(self, store: Store) -> None:
        """By workflow, status and resource, and by all of them together; a status is that of the moment."""
        mine, resource = new_run_id(), new_run_id()
        first = StartedRun(store, an_activation("0"), workflow_id=mine, resource_id=resource)
        self.advance(store, 4)
        second = StartedRun(store, an_activation("0"), workflow_id=mine)
        third = StartedRun(store, an_activation("0"), workflow_id=new_run_id(), resource_id=resource)
        second.commit_request(UpdateRun({"status": StoredStatus.FAILED}))

        found = partial(listed, store)
        assert found(workflow_id=mine) == {first.id, second.id}
        assert found(resource_id=resource) == {first.id, third.id}
        assert found(workflow_id=mine, resource_id=resource) == {first.id}
        assert found(workflow_id=mine, status="failed") == {second.id}
        assert found(workflow_id=mine, status="running") == {first.id}
        assert found(workflow_id=mine, status="pending") == set()
        assert found(workflow_id=new_run_id()) == set()

    def test_runs_in_which_something_is_awaited_are_found(self, store: Store) -> None:
        """Until the run has ended, whatever else runs beside it; also together with other filters."""
        mine, resource = new_run_id(), new_run_id()
        both = (an_activation("0.0"), an_activation("0.1", status=ActivationStatus.SUSPENDED))
        for status in (ActivationStatus.SUSPENDED, ActivationStatus.WAITING, ActivationStatus.PAUSED):
            run = StartedRun(store, an_activation("0.0"), workflow_id=mine, resource_id=resource)
            assert run.id not in listed(store, awaiting=True)
            run.commit_request(*ops_to_create(an_activation("0.1", status=status)))
            assert run.header.status == StoredStatus.RUNNING
            assert run.id in listed(store, awaiting=True, limit=10_000)
            assert listed(store, awaiting=True, workflow_id=mine, resource_id=resource) == {run.id}
            assert listed(store, awaiting=True, workflow_id=mine, status="suspended") == set()
            run.commit_request(UpdateRun({"status": StoredStatus.CANCELED, "closed": True}))
            assert listed(store, awaiting=True, workflow_id=mine) == set()
        gone = StartedRun(store, *both, workflow_id=mine)
        assert listed(store, awaiting=True, workflow_id=mine) == {gone.id}
        gone.commit_request(UpdateActivation("0.1", {"status": ActivationStatus.QUEUED}))
        assert listed(store, awaiting=True, workflow_id=mine) == set()
        other = StartedRun(store, *both, workflow_id=mine)
        assert listed(store, awaiting=True, workflow_id=mine) == {other.id}
        store.delete(other.id)
        assert other.id not in {header.run_id for header in store.runs(RunQuery(awaiting=True, limit=10_000))}

    def test_awaiting_runs_are_listed_in_pages_whatever_their_statuses(self, store: Store) -> None:
        """Newest first; each by the status and the resource that it has now."""
        mine, one, other = new_run_id(), new_run_id(), new_run_id()
        runs = []
        for _ in range(4):
            made = an_activation("0.0"), an_activation("0.1", status=ActivationStatus.PAUSED)
            runs.append(StartedRun(store, *made, workflow_id=mine, resource_id=one))
            self.advance(store, 2)
        for run, status in zip(runs, ("running", "paused", "suspended", "running"), strict=True):
            run.commit_request(UpdateRun({"status": status}))
        StartedRun(store, an_activation("0"), workflow_id=mine, resource_id=one)
        for query in ({"workflow_id": mine}, {"resource_id": one}, {"workflow_id": mine, "resource_id": one}):
            pages = [store.runs(RunQuery(awaiting=True, limit=3, offset=offset, **query)) for offset in (0, 3)]
            assert [[header.run_id for header in page] for page in pages] == [
                [runs[3].id, runs[2].id, runs[1].id],
                [runs[0].id],
            ]
            assert listed(store, awaiting=True, status="running", **query) == {runs[0].id, runs[3].id}
        runs[3].commit_request(UpdateRun({"resource_id": other}))
        assert listed(store, awaiting=True, resource_id=one) == {run.id for run in runs[:3]}
        assert listed(store, awaiting=True, resource_id=other) == {runs[3].id}

    def test_a_run_is_listed_by_the_resource_that_it_has_now(self, store: Store) -> None:
        """A run may get one with its start, another one later, and none again; pages and totals follow."""
        mine, one, other = new_run_id(), new_run_id(), new_run_id()
        found = partial(listed, store)
        late, early = (
            StartedRun(store, an_activation("0"), workflow_id=mine),
            a_header(workflow_id=mine, resource_id=one),
        )
        store.create(early)
        assert found(resource_id=one) == {early.run_id}
        late.commit_request(UpdateRun({"resource_id": one}))
        assert found(resource_id=one) == {early.run_id, late.id}
        assert late.header.resource_id == one
        late.commit_request(UpdateRun({"resource_id": one, "status": StoredStatus.FAILED}))  # as it is already
        assert found(resource_id=one) == {early.run_id, late.id}
        late.commit_request(UpdateRun({"resource_id": other}))
        assert (found(resource_id=one), found(resource_id=other)) == ({early.run_id}, {late.id})
        late.commit_request(UpdateRun({"resource_id": ""}))
        assert (found(resource_id=other), found(workflow_id=mine)) == (set(), {early.run_id, late.id})
        assert found(workflow_id=mine, resource_id="") == {late.id}
        late.commit_request(UpdateRun({"resource_id": one}, unless="status"))
        assert found(resource_id=one) == {early.run_id}

    def test_a_resource_is_one_filter_among_others(self, store: Store) -> None:
        """Together with a workflow or a status, and in pages; also where a commit has named it."""
        mine, resource = new_run_id(), new_run_id()
        runs = []
        for workflow in (mine, mine, new_run_id(), mine):
            runs.append(StartedRun(store, an_activation("0"), workflow_id=workflow))
            self.advance(store, 2)
        for run in runs:
            run.commit_request(UpdateRun({"resource_id": resource}))
            self.advance(store, 2)
        runs[0].commit_request(UpdateRun({"status": StoredStatus.FAILED}))
        found = partial(listed, store, resource_id=resource)
        assert found() == {run.id for run in runs}
        assert found(workflow_id=mine) == {runs[0].id, runs[1].id, runs[3].id}
        assert found(status="failed") == {runs[0].id}
        assert found(workflow_id=mine, status="running") == {runs[1].id, runs[3].id}
        pages = [store.runs(RunQuery(resource_id=resource, limit=3, offset=offset)) for offset in (0, 3)]
        assert [[header.run_id for header in page] for page in pages] == [
            [runs[3].id, runs[2].id, runs[1].id],
            [runs[0].id],
        ]
        assert store.count_runs(RunQuery(resource_id=resource)) == 4

    def test_stale_runs_are_found_page_by_page(self, store: Store) -> None:
        """Those of a status that were last written before a moment, oldest first, also while they are removed."""
        runs: list[StartedRun] = []
        for _ in range(6):
            runs.append(StartedRun(store, an_activation("0")))
            self.advance(store, 2)
        for run in (*runs[:2], *runs[3:]):
            run.commit_request(UpdateRun({"status": StoredStatus.FAILED}))
        self.advance(store, 2)
        before = store.now()
        self.advance(store, 2)
        runs[1].commit_request(UpdateRun({"status": StoredStatus.FAILED}))  # written again since
        newer = StartedRun(store, an_activation("0"))
        newer.commit_request(UpdateRun({"status": StoredStatus.FAILED}))
        mine = {run.id for run in (*runs, newer)}

        def found(limit: int) -> list[str]:
            return [id_ for page in stale_pages(store, before, limit=limit) for id_ in page if id_ in mine]

        wanted = [run.id for run in (runs[0], runs[3], runs[4], runs[5])]
        assert [found(limit) for limit in (100, 3, 1)] == [wanted] * 3
        first = store.stale_runs("failed", before, limit=1)
        for id_ in wanted[:3]:
            assert store.delete(id_)
        rest: list[str] = []
        while first.after:
            first = store.stale_runs("failed", before, first.after, limit=1)
            rest += [header.run_id for header in first.headers if header.run_id in mine]
        assert rest == wanted[3:]

    def test_stale_runs_are_none_of_another_status(self, store: Store) -> None:
        """Nothing is found where none has the status, or none is old enough."""
        run = StartedRun(store, an_activation("0"))
        self.advance(store, 2)
        now = store.now()
        assert run.id not in {header.run_id for header in store.stale_runs("failed", now).headers}
        assert run.id not in {header.run_id for header in store.stale_runs("running", run.header.created_at).headers}
        assert store.stale_runs("running", 0) == StalePage([], "")

    def test_a_resources_name_is_any_text(self, store: Store) -> None:
        """One is not found by what another begins with."""
        some = new_run_id()
        names = [some, f"{some}:", f"{some}:1", f"{some} é/'\"", f"{some}\u2028", f"{some}%", some.upper()]
        runs = {name: StartedRun(store, an_activation("0")) for name in names}
        for name, run in runs.items():
            run.commit_request(UpdateRun({"resource_id": name}))
        for name, run in runs.items():
            assert listed(store, resource_id=name) == {run.id}

    def test_a_deleted_run_is_listed_no_more(self, store: Store) -> None:
        """Neither as it was created nor as it was last."""
        mine, one, other = new_run_id(), new_run_id(), new_run_id()
        run = StartedRun(store, an_activation("0"), workflow_id=mine, resource_id=one)
        run.commit_request(UpdateRun({"resource_id": other, "status": StoredStatus.FAILED}))
        assert listed(store, resource_id=other, status="failed") == {run.id}
        assert store.delete(run.id) is True
        queries = ({"workflow_id": mine}, {"resource_id": one}, {"resource_id": other})
        for query in (*queries, {"workflow_id": mine, "status": "failed"}, {"workflow_id": mine, "status": "running"}):
            assert listed(store, **query) == set()
        StartedRun(store, an_activation("0"), workflow_id=mine, run_id=run.id)
        assert (listed(store, workflow_id=mine), listed(store, resource_id=other)) == ({run.id}, set())

    def test_a_deleted_run_leaves_nothing_behind(self, store: Store) -> None:
        """No header, activation, value, key, event or timer is left, not even for a new run under the same id."""
        run = StartedRun(
            store, an_activation("0"), an_activation("1", status=ActivationStatus.SUSPENDED), redelivery_delay=LEASE
        )
        committed_of(store.commit(run.id, Change(RequestGuard(new_token(), ACTIVE), **EXTRAS)))
        token = run.claim("0", lease=LEASE).activation.lease_token
        assert store.delete(run.id) is True
        assert store.delete(run.id) is False
        assert store.header(run.id) is None
        assert (store.load(run.id), store.load_awaiting(run.id)) == ([], [])
        assert (store.last_event(run.id), store.mail(run.id, "box")) == ("", [])
        self.advance(store, LEASE)
        assert store.due_timers(run.namespace) == []
        assert (
            reason_of(store.commit(run.id, Change(LeaseGuard("0", token), (UpdateRun({"outcome": "success"}),))))
            == UNKNOWN
        )
        assert store.renew([LeaseRef(run.id, "0", token)], LEASE) == {LeaseRef(run.id, "0", token): UNKNOWN}
        again = StartedRun(store, an_activation("0"), run_id=run.id)
        assert [activation.path for activation in store.load(run.id)] == ["", "0"]
        assert store.load_awaiting(run.id) == []
        assert store.values(run.id, EXTRAS["values"]) == {}
        assert (store.state(run.id), store.context(run.id), store.events(run.id)) == ({}, {}, [])
        assert again.mail("box") == []
        again.commit_request()
        assert again.counts() == (1, 0, 0, 0)

    def test_a_run_is_deleted_only_in_the_states_that_were_named(self, store: Store) -> None:
        """Status and removal are one step: nothing is removed from under a run that goes on."""
        run = StartedRun(store, an_activation("0"), workflow_id=new_run_id())
        assert store.delete(run.id, frozenset({"success", "failed"})) is False
        assert run.header.status == StoredStatus.RUNNING
        run.commit_request(UpdateRun({"status": StoredStatus.FAILED}))
        assert store.delete(run.id, frozenset({"success", "failed"})) is True
        assert store.count_runs(RunQuery(workflow_id=run.workflow)) == 0

    def test_closing_twice_is_harmless(self, store: Store) -> None:
        """Giving back what has been given back already is not an error."""
        store.close()
        store.close()
