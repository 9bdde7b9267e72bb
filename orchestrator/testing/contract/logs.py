"""The event log: in order, complete, followed by any number of readers, and cut where it grows too long or old."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from orchestrator.host import monotonic, new_run_id
from orchestrator.ports import Store, StoredEvent
from orchestrator.rules.change import CountDown, CreateActivation, EmitProgress, UpdateActivation
from orchestrator.rules.events import EventType
from orchestrator.rules.model import ActivationStatus, Phase
from orchestrator.testing.contract.kit import LONG, Conditions, StartedRun, an_activation, each, is_no_value, together

KEEP = 10
AGE = 60  # ms: short enough to really wait for
FAR_TOO_MANY = 1_500  # events: a log may be longer than it should, but not without end


def numbers(events: Sequence[StoredEvent]) -> list[Any]:
    """Return the numbers in the events; None stands for those that were dropped."""
    return [None if event.doc["type"] == EventType.EVENTS_TRIMMED else event.doc["n"] for event in events]


def tell(run: StartedRun, first: int, count: int, keep: int = 0, max_event_age: int = 0) -> None:
    """Write so many numbered events in one commit."""
    run.commit_request(
        events=tuple({"type": "n", "n": first + k} for k in range(count)), max_events=keep, max_event_age=max_event_age
    )


def pages(store: Store, run_id: str, limit: int) -> list[StoredEvent]:
    """Return the whole log, read page by page."""
    read: list[StoredEvent] = []
    while page := store.events(run_id, read[-1].id if read else "", limit):
        assert len(page) <= limit
        read += page
    return read


class Logs(Conditions):
    """The event log: in order, complete, followed by any number of readers, and cut where it grows too long or old."""

    def test_events_are_read_in_order_from_a_cursor(self, store: Store) -> None:
        """Ids are cursors: what comes after one is what came later, and nothing is inserted before what was read."""
        run = StartedRun(store, an_activation("0"))
        before = store.now()
        for n in range(12):
            run.commit_request(events=tuple({"type": "n", "n": n * 2 + k} for k in range(2)))
        events = store.events(run.id)
        assert [event.doc["n"] for event in events] == list(range(24))
        assert len({event.id for event in events}) == 24
        assert all(before <= event.at <= store.now() for event in events)
        assert pages(store, run.id, 5) == events
        run.commit_request(events=({"type": "n", "n": 24},))
        assert numbers(store.events(run.id, events[-1].id)) == [24]

    def test_no_event_is_lost_to_a_reader_that_follows(self, store: Store) -> None:
        """A cursor that runs along with concurrent commits sees each event once."""
        run = StartedRun(store, an_activation("0", status=ActivationStatus.OPEN))
        count, writers = 10, 4
        read: list[int] = []
        done = threading.Event()

        def write(n: int) -> None:
            for k in range(count):
                run.commit_request(events=({"type": "n", "n": n * count + k},))

        def follow() -> None:
            cursor = ""
            while True:
                over = done.is_set()
                while page := store.events(run.id, cursor, limit=7):
                    read.extend(event.doc["n"] for event in page)
                    cursor = page[-1].id
                if over:
                    return

        def work() -> None:
            try:
                each(write, range(writers))
            finally:
                done.set()

        together(follow, work)
        assert sorted(read) == list(range(count * writers))
        assert read == [event.doc["n"] for event in store.events(run.id)]

    def test_the_events_of_a_commit_stand_before_those_of_what_it_brings_about(self, store: Store) -> None:
        """The change's own events come first, then those of its operations, one after the other."""
        run = StartedRun(
            store, an_activation("0"), an_activation("1", status=ActivationStatus.OPEN, pending_children=1, total=1)
        )
        join = UpdateActivation("1", {"status": ActivationStatus.QUEUED, "phase": Phase.JOIN})
        run.commit_request(
            CreateActivation(an_activation("2"), claim="inline"),
            CountDown("1", join, {"type": "down"}),
            EmitProgress("1", {"type": "tell"}),
            events=({"type": "first"}, {"type": "second"}),
        )
        assert [event["type"] for event in run.event_docs()] == [
            "first",
            "second",
            "workflow-step-start",
            "down",
            "tell",
        ]

    def test_what_is_no_cursor_is_an_error(self, store: Store) -> None:
        """A cursor comes from outside, as a browser's header does. It is refused with and without such a run."""
        run = StartedRun(store, an_activation("0"))
        tell(run, 0, 1)
        for text in ("nonsense", "-", "1 2", "é", "\0", "½", "٣", " "):
            for id_ in (run.id, new_run_id()):
                assert is_no_value(partial(store.events, id_, text)), text
                assert is_no_value(partial(store.wait_for_events, id_, text, 0.05)), text

    # --- following ------------------------------------------------------------------------------------------------

    def test_following_returns_at_once_what_is_there(self, store: Store) -> None:
        """The answer is the page that `events` returns."""
        run = StartedRun(store, an_activation("0"))
        tell(run, 0, 3)
        begun = monotonic()
        found = store.wait_for_events(run.id, "", 30.0)
        assert found == store.events(run.id)
        assert store.wait_for_events(run.id, found[0].id, 30.0) == found[1:]
        assert store.wait_for_events(run.id, "", 30.0, limit=2) == found[:2]
        assert monotonic() - begun < 15

    def test_following_ends_with_its_time(self, store: Store) -> None:
        """With nothing, and not before."""
        run = StartedRun(store, an_activation("0"))
        tell(run, 0, 1)
        last, begun = store.last_event(run.id), monotonic()
        assert store.wait_for_events(run.id, last, 0.05) == []
        assert monotonic() - begun >= 0.05
        assert store.wait_for_events(run.id, last, 0.0) == []
        assert len(store.wait_for_events(run.id, "", 0.0)) == 1

    def test_following_wakes_up_with_the_next_event(self, store: Store) -> None:
        """A change from outside, a claim and a commit under its lease wake a reader; another run's never do."""
        run, other = StartedRun(store, an_activation("0")), StartedRun(store, an_activation("0"))
        calls: tuple[Callable[[], Any], ...] = (
            lambda: tell(run, 0, 1),
            lambda: run.claim("0", token="token"),
            lambda: run.commit("0", "token", events=({"type": "told"},)),
        )

        def wake(call: Callable[[], Any]) -> None:
            threading.Event().wait(0.05)
            tell(other, 0, 1)
            call()

        for call in calls:
            last, begun = store.last_event(run.id), monotonic()
            found, _ = together(partial(store.wait_for_events, run.id, last, 30.0), partial(wake, call))
            assert monotonic() - begun < 15
            assert [event.id for event in found] == [store.last_event(run.id)] != [last]

    def test_any_number_may_follow(self, store: Store) -> None:
        """Each sees each event once, all in one order, however many write."""
        run = StartedRun(store, an_activation("0"))
        readers, writers, count = 8, 3, 10

        def read() -> list[str]:
            seen: list[str] = []
            while len(seen) < writers * count:
                found = store.wait_for_events(run.id, seen[-1] if seen else "", 30.0, limit=4)
                assert found
                seen += [event.id for event in found]
            return seen

        def write() -> list[str]:
            for n in range(count):
                tell(run, n, 1)
            return []

        seen = together(*[read] * readers, *[write] * writers)[:readers]
        assert all(ids == [event.id for event in store.events(run.id)] for ids in seen)

    def test_following_a_run_that_goes_away_ends(self, store: Store) -> None:
        """With its time at the latest, and with nothing."""
        run = StartedRun(store, an_activation("0"))
        tell(run, 0, 1)
        last = store.last_event(run.id)

        def remove() -> None:
            threading.Event().wait(0.05)
            store.delete(run.id)

        found, _ = together(lambda: store.wait_for_events(run.id, last, 0.3), remove)
        assert found == []

    def test_the_last_event_is_the_cursor_of_all_that_comes(self, store: Store) -> None:
        """The cursor is empty until there is an event, and then it stands behind the newest."""
        run = StartedRun(store, an_activation("0"))
        assert store.last_event(run.id) == ""
        for count in (1, 7):
            tell(run, 0, count)
            last = store.last_event(run.id)
            assert last == store.events(run.id)[-1].id
            assert store.events(run.id, last) == []
            tell(run, count, 2)
            assert numbers(store.events(run.id, last)) == [count, count + 1]
        last = store.last_event(run.id)
        run.claim("0")
        assert [event.doc["type"] for event in store.events(run.id, last)] == ["workflow-step-start"]

    # --- logs that have grown too long ----------------------------------------------------------------------------

    def test_a_log_without_limits_stays_whole(self, store: Store) -> None:
        """A change that keeps 0 events keeps them all."""
        run = StartedRun(store, an_activation("0"))
        for n in range(0, FAR_TOO_MANY, 100):
            tell(run, n, 100)
        assert numbers(store.events(run.id, limit=2 * FAR_TOO_MANY)) == [*range(FAR_TOO_MANY)]

    def test_the_newest_events_are_kept(self, store: Store) -> None:
        """At least so many, besides what stands for the others; and what is left has no gap."""
        for keep, count in ((1, 3), (KEEP, 25), (60, 40), (100, 70)):
            run, told = StartedRun(store, an_activation("0")), 0
            for _ in range(15):
                tell(run, told, count, keep)
                told += count
                for _ in range(2):
                    found = numbers(store.events(run.id, limit=FAR_TOO_MANY))
                    kept = found[found[0] is None :]
                    assert kept == [*range(told - len(kept), told)]
                    assert len(kept) >= min(keep, told)
                    assert found[0] is None or len(found) == told
                    run.commit_request(max_events=keep)  # a change that tells nothing itself

    def test_a_log_that_is_far_too_long_is_cut(self, store: Store) -> None:
        """Not each time, but neither does it grow without end."""
        run = StartedRun(store, an_activation("0"))
        for n in range(0, FAR_TOO_MANY, 50):
            tell(run, n, 50, KEEP)
        found = numbers(store.events(run.id, limit=2 * FAR_TOO_MANY))
        assert found[0] is None
        assert KEEP < len(found) < FAR_TOO_MANY // 2

    def test_a_reader_who_comes_too_late_is_told_so(self, store: Store) -> None:
        """One event stands for all that were dropped behind its cursor. A reader that was faster sees no such event."""
        for keep, max_event_age in ((KEEP, 0), (0, AGE)):
            run = StartedRun(store, an_activation("0"))
            tell(run, 0, 20)
            early = store.events(run.id)
            tell(run, 20, FAR_TOO_MANY // 2)
            self.advance(store, AGE + 1)
            for n in range(20 + FAR_TOO_MANY // 2, FAR_TOO_MANY, 40):
                tell(run, n, 40, keep, max_event_age)
            left = store.events(run.id, limit=2 * FAR_TOO_MANY)
            assert numbers(left)[0] is None
            assert not {event.id for event in early} & {event.id for event in left}
            for event in (early[0], early[10], early[-1]):
                assert store.events(run.id, event.id, 2 * FAR_TOO_MANY) == left
            assert store.wait_for_events(run.id, early[3].id, 30.0, limit=3) == left[:3]
            for place in (0, 1, 5, len(left) - 2):
                assert store.events(run.id, left[place].id, 2 * FAR_TOO_MANY) == left[place + 1 :]
            assert pages(store, run.id, 7) == left
            assert store.last_event(run.id) == left[-1].id

    def test_a_reader_who_runs_along_misses_nothing(self, store: Store) -> None:
        """Its cursors stay valid, however often the log is cut behind it."""
        run, cursor, read = StartedRun(store, an_activation("0")), "", list[StoredEvent]()
        for n in range(0, FAR_TOO_MANY, 6):
            tell(run, n, 6, KEEP)
            read += store.events(run.id, cursor)
            cursor = read[-1].id
        assert numbers(read) == [*range(len(read))]
        assert len({event.id for event in read}) == len(read) == FAR_TOO_MANY

    # --- logs that have grown too old -----------------------------------------------------------------------------

    def test_what_is_younger_is_kept(self, store: Store) -> None:
        """By the store's clock, however often the log is cut; and what is left has no gap."""
        for count in (1, 7, 60):
            run, at = StartedRun(store, an_activation("0")), list[int]()
            for _ in range(15):
                tell(run, len(at), count, max_event_age=AGE)
                late = store.now()
                events = store.events(run.id, limit=FAR_TOO_MANY)
                at += [event.at for event in events[-count:]]
                found = numbers(events)
                kept = found[found[0] is None :]
                assert kept == [*range(len(at) - len(kept), len(at))]
                assert found[0] is None or len(found) == len(at)
                assert len(kept) >= count
                assert len(kept) >= sum(moment >= late - AGE for moment in at)
                self.advance(store, AGE // 4)

    def test_what_a_change_tells_itself_is_kept(self, store: Store) -> None:
        """The first events of a run, and those that come after others that are too old."""
        run = StartedRun(store, an_activation("0"))
        tell(run, 0, 300, max_event_age=1)
        assert numbers(store.events(run.id)) == [*range(300)]
        for first in range(300, FAR_TOO_MANY, 300):
            self.advance(store, 2)
            tell(run, first, 300, max_event_age=1)
            found = numbers(store.events(run.id, limit=FAR_TOO_MANY))
            assert found[0] is None
            assert found[-300:] == [*range(first, first + 300)]

    def test_what_is_too_old_goes(self, store: Store) -> None:
        """Now and then, while the run goes on, in small steps or large ones; also where so many might stay."""
        for keep, count in ((0, 1), (3 * FAR_TOO_MANY, 3), (0, 50)):
            run = StartedRun(store, an_activation("0"))
            tell(run, 0, FAR_TOO_MANY)
            self.advance(store, AGE + 1)
            for n in range(0, 1_000, count):
                tell(run, FAR_TOO_MANY + n, count, keep, AGE)
            found = numbers(store.events(run.id, limit=3 * FAR_TOO_MANY))
            assert found[0] is None
            assert found[1] > FAR_TOO_MANY // 2

    def test_claims_do_not_keep_what_is_too_old(self, store: Store) -> None:
        """Claims write events too, and know no limits."""
        run, again = StartedRun(store, an_activation("0")), UpdateActivation("0", {"status": ActivationStatus.QUEUED})
        tell(run, 0, FAR_TOO_MANY - 1)
        self.advance(store, 2)
        for _ in range(250):  # all round numbers are events of claims
            token = run.claim("0").activation.lease_token
            run.commit("0", token, again, events=({"type": "told"},) * 4, max_event_age=1)
        assert len(store.events(run.id, limit=3 * FAR_TOO_MANY)) < FAR_TOO_MANY + 250

    def test_nothing_goes_by_its_age_where_nothing_is_told(self, store: Store) -> None:
        """The events of a run that writes no more stay as they are."""
        run = StartedRun(store, an_activation("0"))
        for first in (0, FAR_TOO_MANY // 2):
            tell(run, first, FAR_TOO_MANY // 2)
            self.advance(store, 2)
        for _ in range(100):
            run.commit_request(max_event_age=1)
        assert numbers(store.events(run.id, limit=FAR_TOO_MANY)) == [*range(FAR_TOO_MANY)]

    def test_a_log_that_is_young_and_too_long_is_cut(self, store: Store) -> None:
        """Each limit is enough by itself."""
        run = StartedRun(store, an_activation("0"))
        for n in range(0, FAR_TOO_MANY, 50):
            tell(run, n, 50, KEEP, LONG)
        assert KEEP < len(store.events(run.id, limit=2 * FAR_TOO_MANY)) < FAR_TOO_MANY // 2
