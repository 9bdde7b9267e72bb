"""Creating runs, and reading them."""

from __future__ import annotations

from dataclasses import fields, replace

from orchestrator.host import new_run_id
from orchestrator.ports import LeaseRef, Store
from orchestrator.rules.apply import UNKNOWN
from orchestrator.rules.change import Change, ClaimRequest, CreateActivation, Doc, RequestGuard, UpdateActivation
from orchestrator.rules.model import ActivationStatus, Phase, Role, StoredStatus
from orchestrator.testing.contract.kit import (
    ACTIVE,
    LEASE,
    OPAQUE,
    Conditions,
    StartedRun,
    a_header,
    an_activation,
    each,
    reason_of,
)


class Reading(Conditions):
    """Creating runs, and reading them."""

    def test_a_new_run_is_stored_as_it_is_given_and_stamped(self, store: Store) -> None:
        """`create` keeps every field and writes the moment of creation by the store's clock."""
        before = store.now()
        given = a_header(resource_id="r", input="i", per_step=True, auto_restart=False)
        stored = store.create(given)
        assert before <= stored.created_at <= store.now()
        assert stored == replace(given, created_at=stored.created_at, updated_at=stored.created_at)
        assert store.header(given.run_id) == stored

    def test_creating_a_run_again_returns_what_is_stored_and_changes_nothing(self, store: Store) -> None:
        """The second caller gets the first run, however far it has come."""
        run = StartedRun(store, an_activation("0"))
        again = store.create(a_header(run_id=run.id, workflow_id="another"))
        assert again == run.header
        assert again.workflow_id == "contract"
        assert again.status == StoredStatus.RUNNING
        assert store.header(run.id) == again

    def test_two_threads_that_create_one_run_see_the_same(self, store: Store) -> None:
        """Only one of them inserts it."""
        id_ = new_run_id()
        seen = each(lambda n: store.create(a_header(run_id=id_, workflow_id=f"w{n}")), range(4))
        assert len(set(seen)) == 1

    def test_an_unknown_run_reads_as_nothing(self, store: Store) -> None:
        """No reading verb raises for a run that was never created."""
        id_ = new_run_id()
        assert store.header(id_) is None
        assert store.load(id_) == []
        assert store.load(id_, ["0"]) == []
        assert store.load_awaiting(id_) == []
        assert store.values(id_, ["a"]) == {}
        assert store.state(id_) == {}
        assert store.context(id_) == {}
        assert store.mail(id_, "name") == []
        assert store.events(id_) == []
        assert store.wait_for_events(id_, "", 0.05) == []
        assert store.last_event(id_) == ""
        assert store.wait_until_settled(id_, 0, 0.05) is None

    def test_an_unknown_run_refuses_every_write(self, store: Store) -> None:
        """A claim, a commit, a renewal and a deletion say that there is no such run."""
        unknown = LeaseRef(new_run_id(), "0", "t")
        assert reason_of(store.claim(ClaimRequest(unknown.run_id, "0", 1, "t"))) == UNKNOWN
        assert reason_of(store.commit(unknown.run_id, Change(RequestGuard("c", ACTIVE)))) == UNKNOWN
        assert store.renew([unknown], LEASE) == {unknown: UNKNOWN}
        assert store.delete(unknown.run_id) is False
        assert store.header(unknown.run_id) is None

    def test_activations_come_in_the_order_of_their_paths_as_numbers(self, store: Store) -> None:
        """The tenth item follows the ninth, and a parent stands before its children."""
        paths = ["0.10", "0.9", "0", "1", "0.2.1", "0.2", "10", "2", "0.2.10", "0.2.9"]
        run = StartedRun(store, *map(an_activation, paths))
        ordered = ["", "0", "0.2", "0.2.1", "0.2.9", "0.2.10", "0.9", "0.10", "1", "2", "10"]
        assert [activation.path for activation in store.load(run.id)] == ordered

    def test_activations_are_read_by_their_paths_as_far_as_they_exist(self, store: Store) -> None:
        """Unknown paths are left out, twice named ones come once."""
        run = StartedRun(store, an_activation("0"), an_activation("1"), an_activation("2"))
        assert [activation.path for activation in store.load(run.id, ["2", "7", "0", "2"])] == ["0", "2"]
        assert store.load(run.id, []) == []
        assert [activation.path for activation in store.load(run.id, [""])] == [""]

    def test_awaiting_activations_are_found(self, store: Store) -> None:
        """Suspended, waiting and paused ones are found, and only as long as they are."""
        awaiting = [
            an_activation("0.10", status=ActivationStatus.SUSPENDED),
            an_activation("0.9", status=ActivationStatus.WAITING),
        ]
        run = StartedRun(
            store,
            *awaiting,
            an_activation("1", status=ActivationStatus.PAUSED),
            an_activation("2"),
            an_activation("3", status=ActivationStatus.SLEEPING),
        )
        assert [activation.path for activation in store.load_awaiting(run.id)] == ["0.9", "0.10", "1"]
        run.commit_request(
            UpdateActivation("0.10", {"status": ActivationStatus.QUEUED}),
            CreateActivation(an_activation("1", status=ActivationStatus.SUCCESS)),
        )
        assert [activation.path for activation in store.load_awaiting(run.id)] == ["0.9"]

    def test_what_awaits_is_found_by_its_place_and_by_its_label(self, store: Store) -> None:
        """At or below a path, and never by what a path or label only begins with. A label goes with its suspension."""
        labels = {"0.1": "a", "0.1.0": "a:b", "0.10": "a", "0.2.5": "é:", "1": "", "2": "x/'"}
        run = StartedRun(
            store,
            *(an_activation(path, status=ActivationStatus.SUSPENDED, label=name) for path, name in labels.items()),
            an_activation("0.3", status=ActivationStatus.SUCCESS, label="a"),
            an_activation("0.4", status=ActivationStatus.WAITING),
        )

        def below(*paths: str) -> list[str]:
            return [activation.path for activation in store.load_awaiting(run.id, below=paths)]

        def labeled(label: str) -> list[str]:
            return [activation.path for activation in store.load_awaiting(run.id, label=label)]

        assert below("0.1") == ["0.1", "0.1.0"]
        assert below("0.1.0", "0.2", "0.1", "7") == ["0.1", "0.1.0", "0.2.5"]
        assert below("0") == ["0.1", "0.1.0", "0.2.5", "0.4", "0.10"]
        assert below("0.3") == below() == []
        assert [labeled(label) for label in ("a", "a:b", "é:", "x/'", "b")] == [
            ["0.1", "0.10"],
            ["0.1.0"],
            ["0.2.5"],
            ["2"],
            [],
        ]
        run.commit_request(
            UpdateActivation("0.1", {"status": ActivationStatus.QUEUED}),
            UpdateActivation("0.10", {"label": "b"}),
            UpdateActivation("2", {"label": "y"}),
        )
        assert [labeled(label) for label in ("a", "b", "x/'", "y")] == [[], ["0.10"], [], ["2"]]
        assert below("0.1") == ["0.1.0"]

    def test_every_field_of_an_activation_survives(self, store: Store) -> None:
        """A load returns the fields that a commit has written, but for those that the status stamps."""
        full = an_activation(
            "0.3", visit="1.2", quiet=True, input="i", output="o", error="e", needs="a b", scope=1, attempt=2,
            iteration=3, index=3, pending_children=4, next_item=5, total=6, never_started=1, concurrency=2, suspend="s",
            resume="r", resumed=True, restarted=True, label="grün", waiter="?w", tripwire=True, route='{"name":"a"}',
            parked="no such workflow", trace="t 1", last_lease_token="earlier", last_reply="[]",
            status=ActivationStatus.SUSPENDED, role=Role.ITEM.value, phase=Phase.JOIN.value,
            queued_at=7, started_at=8, resumed_at=9, first_seq=2, seq=77, sends=3, looks=2,
            settled="success", following="on_error result", finished="m1 m2",
            sending=2, sender="c", arguments="g", task_retries=1, sent_at=6,
        )  # fmt: skip
        stamped = {"lease_token", "lease", "flush_seq", "abandoned_attempts", "deadline", "suspended_at", "ended_at"}
        assert {each.name for each in fields(full) if getattr(full, each.name) == each.default} == stamped
        run = StartedRun(store, full)
        read = run.activation("0.3")
        assert read == replace(full, seq=read.seq, suspended_at=read.suspended_at)

    def test_opaque_values_survive(self, store: Store) -> None:
        """Nothing looks into users' text: values, state, context and their keys come back as they were written."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.OPEN))
        keys = {f"key:{name} é [] 'x' \"y\"": text for name, text in OPAQUE.items()}
        run.commit_request(values=keys, state=keys, context=keys)
        assert store.values(run.id, keys) == keys
        assert store.values(run.id, []) == {}
        assert store.state(run.id) == keys
        assert store.context(run.id) == keys

    def test_opaque_fields_and_events_survive(self, store: Store) -> None:
        """Labels, reasons and events keep their text, their numbers and their empty lists."""
        label = OPAQUE["unicode"] + OPAQUE["quotes"] + OPAQUE["line breaks"]
        event: Doc = {"type": "note", "list": [], "dict": {}, "big": 1 << 60, "float": 0.5, "none": None, "text": label}
        run = StartedRun(store, an_activation("0", status=ActivationStatus.OPEN))
        run.commit_request(UpdateActivation("0", {"label": label, "parked": label}), events=(event,))
        assert run.activation("0").label == run.activation("0").parked == label
        assert store.events(run.id)[-1].doc == event
