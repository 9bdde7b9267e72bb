"""Settings of a Celery app: parsed, checked by name, without a shown password; and moments without a zone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.utils import filter_hidden_settings

from orchestrator import Orchestrator, Workflow, step


def an_app(**config: Any) -> Celery:
    """An app that sends nothing."""
    app = Celery("configured", broker="memory://", set_as_current=False)
    app.conf.update({"task_always_eager": True, **config})
    return app


def settings_of(**config: Any) -> Any:
    with Orchestrator(an_app(**config)) as orchestrator:
        return orchestrator.settings


def test_texts_of_an_environment_are_parsed() -> None:
    """As `os.environ.get("LEASE", "30")` gives them."""
    found = settings_of(
        orchestrator_lease_seconds="12.5", orchestrator_events_max_per_run="7", orchestrator_publish_events="false"
    )
    assert (found.lease_seconds, found.events_max_per_run, found.publish_events) == (12.5, 7, False)


@pytest.mark.parametrize(
    "name, value",
    [("lease_seconds", "soon"), ("events_max_per_run", 1.5), ("publish_events", "maybe"), ("namespace", 3)],
)
def test_a_value_of_a_wrong_type_names_its_setting(name: str, value: Any) -> None:
    """From a keyword as from the configuration."""
    with pytest.raises(ValueError, match=f"orchestrator_{name}: .* \\(it is of the type {type(value).__name__}\\)"):
        settings_of(**{f"orchestrator_{name}": value})
    with pytest.raises(ValueError, match=f"orchestrator_{name}: "):
        Orchestrator(**{name: value})


def test_a_secret_is_not_in_its_error() -> None:
    """Errors end up in logs."""
    with pytest.raises(ValueError, match="orchestrator_secret_key") as caught:
        settings_of(orchestrator_secret_key={"hidden": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_misspelled_setting_is_refused_with_the_nearest_name() -> None:
    """Left out, its default would count without a word."""
    with pytest.raises(ValueError, match=r"orchestrator_lease_second, .* did you mean orchestrator_lease_seconds\?"):
        settings_of(orchestrator_lease_second=3)
    with pytest.raises(ValueError, match="orchestrator_zzz, which is no setting: choose from lease_seconds"):
        settings_of(orchestrator_zzz=3)


def test_a_misspelled_setting_is_found_in_a_module_with_a_namespace() -> None:
    """As Django's settings are; a name without the namespace is the user's own."""
    module = SimpleNamespace(CELERY_TASK_ALWAYS_EAGER=True, CELERY_ORCHESTRATOR_TICK_SECOND=3, ORCHESTRATOR_OWNER="us")
    app = Celery("django", broker="memory://", set_as_current=False)
    app.config_from_object(module, namespace="CELERY")
    with pytest.raises(ValueError, match="did you mean orchestrator_tick_seconds"):
        _ = Orchestrator(app).settings
    del module.CELERY_ORCHESTRATOR_TICK_SECOND
    assert Orchestrator(app).settings.tick_seconds == 1


PASSWORDS = [
    "postgresql://u:secret@host/db",
    "redis://:secret@host/1",
    "postgresql://u:se/c?r#et@host/db",
    "redis://host/1?password=secret",
    "redis+sentinel://host:1/1?master_name=m&sentinel_password=secret",
    "redis+cluster://user:secret@host:1,other:2",
]


@pytest.mark.parametrize("url", PASSWORDS)
def test_a_password_is_refused_where_celery_shows_it(url: str) -> None:
    """`celery report` and `inspect conf` mask the other name."""
    with pytest.raises(ValueError, match="name the setting orchestrator_database_url") as caught:
        settings_of(orchestrator_store=url)
    assert "secret" not in str(caught.value)
    assert filter_hidden_settings({"orchestrator_database_url": url}) == {"orchestrator_database_url": "********"}


@pytest.mark.parametrize("name", ["orchestrator_store", "orchestrator_database_url"])
def test_either_name_is_the_stores(name: str) -> None:
    """Without a password both do."""
    with Orchestrator(an_app(**{name: "memory://named"})) as orchestrator, Orchestrator(store="memory://named") as same:
        assert orchestrator.store is same.store


# --- when it is read -------------------------------------------------------------------------------------------------


def test_the_configuration_is_read_at_the_first_use() -> None:
    """As Celery reads its own: making the orchestrator does not load it, and what is set after that counts."""
    app = Celery("late", set_as_current=False)
    app.config_from_object("no.such.module")
    flow = Workflow("late-flow").then(step(lambda data: data, id="same")).commit()
    with Orchestrator(app, workflows=[flow], tick_seconds=3) as orchestrator:
        assert not app.configured
        app.config_from_object({"task_always_eager": True, "orchestrator_lease_seconds": 7})
        app.conf.update(orchestrator_tick_seconds=5, orchestrator_database_url="memory://")
        found = orchestrator.settings
        assert (found.lease_seconds, found.tick_seconds, found.namespace) == (7, 3, "late")
        assert flow.delay(1).get(timeout=10) == 1


@pytest.mark.parametrize(
    "namespace, name",
    [(None, "orchestrator_database_url"), ("CELERY", "CELERY_ORCHESTRATOR_DATABASE_URL")],
)
def test_a_missing_store_is_told_at_the_first_use_by_its_setting(namespace: str | None, name: str) -> None:
    """And once it is there, the same orchestrator can be used."""
    module = SimpleNamespace(**{name: None})
    app = Celery("storeless", broker="memory://", set_as_current=False)
    app.config_from_object(module, namespace=namespace)
    with Orchestrator(app) as orchestrator:
        for use in (lambda: orchestrator.store, lambda: orchestrator.runs, lambda: orchestrator.get_run("none")):
            with pytest.raises(ValueError, match=f"set `{name}`"):
                use()
        setattr(module, name, "memory://")
        assert orchestrator.runs.list().total == 0


def test_a_keyword_is_checked_at_once() -> None:
    """It waits for no configuration."""
    app = an_app()
    with pytest.raises(TypeError, match="no setting lease_second"):
        Orchestrator(app, lease_second=3)
    with pytest.raises(ValueError, match="orchestrator_lease_seconds: "):
        Orchestrator(app, lease_seconds="soon")


def test_a_second_orchestrator_is_refused_at_once() -> None:
    """Although nothing has been read by then."""
    app = Celery("twice", broker="memory://", set_as_current=False)
    first = Orchestrator(app, store="memory://")
    with pytest.raises(ValueError, match="already has an orchestrator"):
        Orchestrator(app, store="memory://")
    first.close()


# --- moments ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize("zone", [{}, {"enable_utc": False, "timezone": "UTC"}])
def test_a_moment_without_a_zone_is_what_it_is_to_celery(zone: dict[str, Any]) -> None:
    """UTC, or the app's zone: in `apply_async` and in an existing task's `retry`."""
    app = an_app(**zone)

    @app.task(bind=True, max_retries=3, shared=False)  # type: ignore[untyped-decorator]
    def poll(self: Any, data: int) -> str:
        if not self.request.retries:
            raise self.retry(eta=_utc_now() + timedelta(milliseconds=10))
        return "polled"

    polling = Workflow("polling").then(poll).commit()
    quick = Workflow("quick").then(step(lambda data: data, id="same")).commit()
    with Orchestrator(app, workflows=[polling, quick]):
        assert polling.delay(1).get(timeout=10) == "polled"
        assert quick.apply_async((1,), eta=_utc_now()).get(timeout=10) == 1
