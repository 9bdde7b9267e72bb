"""A Django project as the README lays it out: its commands, its management commands, and its tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.app.django_database import refuse_real_database
from tests.cli.conftest import run_python, with_plugin
from tests.servers import RedisServer
from tests.vendor import WorkerNode

pytest.importorskip("django")

FILES = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "mysite/__init__.py": """
from mysite.celery import app as celery_app
""",
    "mysite/settings.py": """
import os
from pathlib import Path

SECRET_KEY = "of tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "expenses"]
USE_TZ = True
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent.parent / "db.sqlite3",
    "TEST": {"NAME": os.environ.get("TEST_NAME")},
}}
CELERY_BROKER_URL = os.environ.get("BROKER", "memory://")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_ALWAYS_EAGER = "EAGER" in os.environ
if "STORE" in os.environ:
    CELERY_ORCHESTRATOR_DATABASE_URL = os.environ["STORE"]
""",
    "mysite/celery.py": """
import os
from celery import Celery
from orchestrator import Orchestrator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.autodiscover_tasks(related_name="workflows")
orchestrator = Orchestrator(app)
""",
    "expenses/__init__.py": "",
    "expenses/workflows.py": """
from mysite.celery import orchestrator
from orchestrator import Context, Workflow, step


@step
def manager(amount: int, ctx: Context) -> int:
    if not ctx.resumed:
        ctx.suspend()
    return amount + ctx.resume_data


@step
def pay(amount: int) -> int:
    return amount


approval = orchestrator.register(Workflow("expense-approval", input=int).then(manager).then(pay).commit())
""",
    "expenses/tests.py": """
import os
from django.test import TestCase
from mysite.celery import orchestrator

if "EARLY" in os.environ:
    import expenses.workflows


class Approval(TestCase):
    def test_it_starts(self):
        from expenses.workflows import approval

        assert approval.delay(1).run_id
        assert orchestrator.runs.list().total == 1
""",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The project's folder."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return with_plugin(tmp_path)


def test_the_command_line_knows_the_workflows_of_the_apps(
    site: Path, redis_server: RedisServer, worker_factory: Callable[..., WorkerNode]
) -> None:
    """They are found by Celery's autodiscovery, which only workers trigger by themselves."""
    places = {"BROKER": redis_server.url(12), "STORE": redis_server.url(13)}
    worker_factory("mysite", env=places, cwd=site)

    def call(*arguments: str, code: int = 0) -> str:
        done = run_python("-m", "celery", "-A", "mysite", "workflow", *arguments, cwd=site, **places)
        assert done.returncode == code, done
        return done.stdout

    assert "manager" in call("graph", "expense-approval")
    call("start", "expense-approval", "5", "--run-id", "one", "--timeout", "60", code=4)
    assert json.loads(call("resume", "one", "2", "--step", "manager", "--json"))["result"] == 7


def test_management_commands_need_no_store(site: Path) -> None:
    """The package is imported, and with it the orchestrator is made, while the settings are being read."""
    done = run_python("manage.py", "check", cwd=site)
    assert (done.returncode, "no issues" in done.stdout) == (0, True), done
    for arguments in (["worker"], ["workflow", "list"]):
        done = run_python("-m", "celery", "-A", "mysite", *arguments, cwd=site)
        assert done.returncode != 0
        assert "set `CELERY_ORCHESTRATOR_DATABASE_URL`" in done.stderr, done


@pytest.mark.parametrize("more", [{"EARLY": "1"}, {"EARLY": "1", "TEST_NAME": "test.sqlite3"}, {"MIGRATED": "1"}])
def test_tests_of_django_do_not_write_into_the_real_database(site: Path, more: dict[str, str]) -> None:
    """A store there would not follow Django into the database that it makes for them."""
    url, before = f"sqlite:///{site}/db.sqlite3", b""
    if "MIGRATED" in more:
        assert run_python("manage.py", "migrate", cwd=site).returncode == 0
        before = (site / "db.sqlite3").read_bytes()
    done = run_python("manage.py", "test", cwd=site, STORE=url, EAGER="1", **more)
    assert done.returncode == 1, done
    assert "CELERY_ORCHESTRATOR_DATABASE_URL names the real database of Django's 'default'" in done.stderr
    assert before == ((site / "db.sqlite3").read_bytes() if before else b"")
    for other in ("memory://", f"sqlite:///{site}/runs.db"):
        done = run_python("manage.py", "test", cwd=site, STORE=other, EAGER="1", **more)
        assert done.returncode == 0, done


@pytest.mark.parametrize(
    "name, chosen, url, refused",
    [
        ("test_shop", None, "postgresql+psycopg://u:p@localhost/shop", True),
        ("test_shop_gw0", None, "postgres://u:p@127.0.0.1:5432/shop", True),
        ("test_shop_2", None, "postgresql:///shop?host=/run/postgresql", True),
        ("shop", None, "postgresql://localhost/shop", True),  # no database was made for the tests
        ("shop", "shop", "postgresql://localhost/shop", False),
        ("test_shop", None, "postgresql://localhost/test_shop", False),
        ("test_shop", None, "postgresql://localhost/runs", False),
        ("test_shop", None, "postgresql://db.example/shop", False),
        ("test_shop", None, "redis://localhost/1", False),
    ],
)
def test_the_real_database_is_known_by_the_name_of_the_tests(
    monkeypatch: pytest.MonkeyPatch, name: str, chosen: str | None, url: str, refused: bool
) -> None:
    """Where it was never seen: Django puts `test_` before it, and the number of a parallel process behind."""
    entry = {"ENGINE": "django.db.backends.postgresql", "HOST": "localhost", "NAME": name, "TEST": {"NAME": chosen}}
    conf = SimpleNamespace(settings=SimpleNamespace(configured=True, DATABASES={"default": entry}))
    monkeypatch.setitem(sys.modules, "django.conf", conf)
    monkeypatch.setitem(sys.modules, "django.core.mail", SimpleNamespace(outbox=[]))
    with pytest.raises(ValueError, match="of its own") if refused else nullcontext():
        refuse_real_database(url, "SETTING")
