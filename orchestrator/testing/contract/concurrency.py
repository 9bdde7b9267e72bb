"""Several at once."""

from __future__ import annotations

import threading
from dataclasses import replace

from orchestrator.core.changes import Ask, Change, Committed, Down, Holder, Next, Put, Set
from orchestrator.core.records import Phase, Role, Status
from orchestrator.host import new_token
from orchestrator.ports import Store
from orchestrator.testing.contract.kit import (
    LONG,
    Begun,
    Conditions,
    a_record,
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
        run = Begun(store, a_record("0"))
        token = run.claim("0").record.token
        before = run.header.commits

        def change(n: int) -> Change:
            ops = (Set("0", {"status": Status.SUCCESS, "output": f"o{n}"}), Put(a_record(f"{n}")))
            return Change(Holder("0", token), ops, values={f"o{n}": f"={n}"}, events=({"type": "told", "n": n},))

        answers = each(lambda n: committed_of(store.commit(run.id, change(n))), range(1, 5))
        assert run.header.commits == before + 1
        (told,) = run.told("told")
        assert run.record("0").output == f"o{told['n']}"
        assert {d.path for answer in answers for d in answer.dispatches} == {str(told["n"])}
        assert [record.path for record in store.load(run.id)] == ["", "0", str(told["n"])]

    def test_children_that_end_together_are_all_counted(self, store: Store) -> None:
        """However they overlap, the counter reaches zero once, and the join is claimed once."""
        count = 8
        block = a_record("0", status=Status.OPEN, left=count, total=count, next=count)
        run = Begun(store, block, *(a_record(f"0.{n}") for n in range(count)))
        tokens = [run.claim(f"0.{n}", lease=LONG).record.token for n in range(count)]

        def end(n: int) -> Committed:
            down = Down("0", Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN}, claim=f"join {n}"))
            return run.commit(f"0.{n}", tokens[n], Set(f"0.{n}", {"status": Status.SUCCESS}), down, rest=f"rest {n}")

        answers = each(end, range(count))
        claimed = [answer.claimed.record for answer in answers if answer.claimed is not None]
        assert [record.path for record in claimed] == ["0"]
        assert run.record("0") == claimed[0]
        assert (claimed[0].left, run.header.live) == (0, 1)

    def test_items_that_end_together_start_each_item_once(self, store: Store) -> None:
        """No place of the window is lost and none is given twice."""
        total = 12
        run = Begun(store, a_record("0", status=Status.OPEN, left=total, total=total, width=4))
        template = replace(a_record("0.0", role=Role.ITEM.value), step="each")
        following = Next("0", template, "x")
        todo = [(d.path, d.seq) for d in run.caller(*[following] * 4).dispatches]
        ran: list[str] = []

        def work(path: str, seq: int) -> None:
            while True:
                token = new_token()
                claimed_of(store.claim(Ask(run.id, path, seq, token, LONG)))
                ran.append(path)
                down = Down("0", Set("0", {"status": Status.QUEUED, "phase": Phase.JOIN}))
                answer = run.commit(path, token, Set(path, {"status": Status.SUCCESS}), following, down)
                if not answer.dispatches or answer.dispatches[0].path == "0":
                    return
                path, seq = answer.dispatches[0].path, answer.dispatches[0].seq

        each(lambda pair: work(*pair), todo)
        assert sorted(ran) == sorted(f"0.{n}" for n in range(total))
        assert (run.record("0").left, run.record("0").status) == (0, Status.QUEUED)

    def test_a_read_sees_whole_commits(self, store: Store) -> None:
        """Records that are always written together are always read together."""
        run = Begun(store, a_record("0", status=Status.OPEN), a_record("1", status=Status.OPEN))
        done = threading.Event()

        def write() -> None:
            try:
                for n in range(1, 30):
                    run.caller(Set("0", {"label": str(n)}), Set("1", {"label": str(n)}))
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
        """With connections and locks of its own, whatever threads of the parent are doing; nobody notices the other."""
        run = Begun(store, a_record("0", status=Status.OPEN))
        done = threading.Event()

        def write() -> int:
            count = 0
            while not done.is_set():
                run.caller(events=({"type": "note"},))
                count += 1
            return count

        def child() -> None:
            mine = Begun(store, a_record("0"))
            mine.commit("0", mine.claim("0").record.token, Set("0", {"status": Status.SUCCESS}))
            assert mine.record("0").status == Status.SUCCESS
            run.caller(events=({"type": "child"},))

        def fork() -> list[str]:
            try:
                return [in_a_child(child) for _ in range(5)]
            finally:
                done.set()

        *written, said = together(write, write, fork)
        assert said == [""] * 5
        types = [event.doc["type"] for event in store.events(run.id, limit=1_000_000)]
        assert types.count("note") == sum(written)
