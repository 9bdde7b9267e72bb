"""Several at once."""

from __future__ import annotations

import threading
from dataclasses import replace

from orchestrator.host import new_token
from orchestrator.ports import Store
from orchestrator.rules.change import (
    Change,
    ClaimRequest,
    Committed,
    CountDown,
    CreateActivation,
    LeaseGuard,
    StartNextItem,
    UpdateActivation,
)
from orchestrator.rules.model import ActivationStatus, Phase, Role
from orchestrator.testing.contract.kit import (
    LONG,
    Conditions,
    StartedRun,
    an_activation,
    claimed_of,
    committed_of,
    each,
    in_a_child,
    together,
)


class Concurrency(Conditions):
    """Several at once."""

    def test_two_commits_of_one_claim_are_applied_once(self, store: Store) -> None:
        """One of them is written, whatever they say, and both hear its answer."""
        run = StartedRun(store, an_activation("0"))
        token = run.claim("0").activation.lease_token
        before = run.header.commits

        def change(n: int) -> Change:
            ops = (
                UpdateActivation("0", {"status": ActivationStatus.SUCCESS, "output": f"o{n}"}),
                CreateActivation(an_activation(f"{n}")),
            )
            return Change(LeaseGuard("0", token), ops, values={f"o{n}": f"={n}"}, events=({"type": "told", "n": n},))

        answers = each(lambda n: committed_of(store.commit(run.id, change(n))), range(1, 5))
        assert run.header.commits == before + 1
        (told,) = run.event_docs("told")
        assert run.activation("0").output == f"o{told['n']}"
        assert {d.path for answer in answers for d in answer.dispatches} == {str(told["n"])}
        assert [activation.path for activation in store.load(run.id)] == ["", "0", str(told["n"])]

    def test_children_that_end_together_are_all_counted(self, store: Store) -> None:
        """The counter reaches zero once and the join is claimed once, however the commits overlap."""
        count = 8
        block = an_activation("0", status=ActivationStatus.OPEN, pending_children=count, total=count, next_item=count)
        run = StartedRun(store, block, *(an_activation(f"0.{n}") for n in range(count)))
        tokens = [run.claim(f"0.{n}", lease=LONG).activation.lease_token for n in range(count)]

        def end(n: int) -> Committed:
            down = CountDown(
                "0", UpdateActivation("0", {"status": ActivationStatus.QUEUED, "phase": Phase.JOIN}, claim=f"join {n}")
            )
            return run.commit(
                f"0.{n}",
                tokens[n],
                UpdateActivation(f"0.{n}", {"status": ActivationStatus.SUCCESS}),
                down,
                settle_token=f"settle {n}",
            )

        answers = each(end, range(count))
        claimed = [answer.claimed.activation for answer in answers if answer.claimed is not None]
        assert [activation.path for activation in claimed] == ["0"]
        assert run.activation("0") == claimed[0]
        assert (claimed[0].pending_children, run.header.live) == (0, 1)

    def test_items_that_end_together_start_each_item_once(self, store: Store) -> None:
        """No place of the window is lost and none is given twice."""
        total = 12
        run = StartedRun(
            store, an_activation("0", status=ActivationStatus.OPEN, pending_children=total, total=total, concurrency=4)
        )
        template = replace(an_activation("0.0", role=Role.ITEM.value), step="each")
        following = StartNextItem("0", template, "x")
        todo = [(d.path, d.seq) for d in run.commit_request(*[following] * 4).dispatches]
        ran: list[str] = []

        def work(path: str, seq: int) -> None:
            while True:
                token = new_token()
                claimed_of(store.claim(ClaimRequest(run.id, path, seq, token, LONG)))
                ran.append(path)
                down = CountDown("0", UpdateActivation("0", {"status": ActivationStatus.QUEUED, "phase": Phase.JOIN}))
                answer = run.commit(
                    path, token, UpdateActivation(path, {"status": ActivationStatus.SUCCESS}), following, down
                )
                if not answer.dispatches or answer.dispatches[0].path == "0":
                    return
                path, seq = answer.dispatches[0].path, answer.dispatches[0].seq

        each(lambda pair: work(*pair), todo)
        assert sorted(ran) == sorted(f"0.{n}" for n in range(total))
        assert (run.activation("0").pending_children, run.activation("0").status) == (0, ActivationStatus.QUEUED)

    def test_a_read_sees_whole_commits(self, store: Store) -> None:
        """Activations that are always written together are always read together."""
        run = StartedRun(
            store, an_activation("0", status=ActivationStatus.OPEN), an_activation("1", status=ActivationStatus.OPEN)
        )
        done = threading.Event()

        def write() -> None:
            try:
                for n in range(1, 30):
                    run.commit_request(
                        UpdateActivation("0", {"label": str(n)}), UpdateActivation("1", {"label": str(n)})
                    )
            finally:
                done.set()

        def read() -> list[tuple[str, str]]:
            seen = []
            while not done.is_set():
                zero, one = store.load(run.id, ["0", "1"])
                seen.append((zero.label, one.label))
            return seen

        pairs = together(read, write)[0]
        assert all(zero == one for zero, one in pairs)

    def test_a_forked_process_uses_the_store_at_once(self, store: Store) -> None:
        """A child has connections and locks of its own, and neither process disturbs the other."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.OPEN))
        done = threading.Event()

        def write() -> int:
            count = 0
            while not done.is_set():
                run.commit_request(events=({"type": "note"},))
                count += 1
            return count

        def child() -> None:
            mine = StartedRun(store, an_activation("0"))
            mine.commit(
                "0", mine.claim("0").activation.lease_token, UpdateActivation("0", {"status": ActivationStatus.SUCCESS})
            )
            assert mine.activation("0").status == ActivationStatus.SUCCESS
            run.commit_request(events=({"type": "child"},))

        def fork() -> list[str]:
            try:
                return [in_a_child(child) for _ in range(5)]
            finally:
                done.set()

        *written, said = together(write, write, fork)
        assert said == [""] * 5
        types = [event.doc["type"] for event in store.events(run.id, limit=1_000_000)]
        assert types.count("note") == sum(written)
