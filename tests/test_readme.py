"""The examples of the README and of the pages for users work: they run, and print what the page says.

Each block is a file, named by its first line. In the README and the tutorial pages every block is one; the other pages
have fragments too. Blocks that name servers run with an in-memory broker and SQLite, on a real worker in a thread of
a process of its own.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ("README.md", *(f"docs/{name}.md" for name in ("getting-started", "celery", "django", "flask", "testing")))
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in (*TUTORIALS, "docs/reference.md", "docs/operating.md")
}
README = PAGES["README.md"]
SHOWN = "\n".join(PAGES.values())
BLOCK = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^```console\n\$ python (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ orchestrator (.*)$", re.MULTILINE)
EXPORT = re.compile(r"^\$ export (.*)$", re.MULTILINE)
PICTURE = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = dict(BLOCK.findall(SHOWN))
TIMEOUT = 60
DEMO_TIMEOUT = 150  # four worker processes, one pair after the other

EMBEDDED = {
    "redis://localhost:6379/0": "memory://localhost/",
    "redis://localhost:6379/1": "sqlite:///shop.db",
    "redis://localhost:6379/2": "memory://localhost/",
    "redis://localhost:6379/3": "sqlite:///billing.db",
    "redis://localhost:6379/4": "db+sqlite:///results.db",
    "redis://localhost:6379/5": "memory://localhost/",
    "redis://localhost:6379/6": "sqlite:///flask_shop.db",
    "redis://localhost:6379/8": "memory://localhost/",
}

# Runs a worker beside the line that follows; `app` is the Celery app. The process ends without stopping the worker:
# that would take seconds.
WITH_WORKER = """
import os, sys
from celery.contrib.testing.worker import start_worker

app.conf.broker_transport_options = {{"polling_interval": 0.01}}
with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False):
    {line}
    sys.stdout.flush()
    os._exit(0)
"""
DJANGO_SETTINGS = """
SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["testserver"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}}
INSTALLED_APPS = ["orders"]
ROOT_URLCONF = "mysite.urls"
CELERY_BROKER_URL = "memory://localhost/"
CELERY_ORCHESTRATOR_DATABASE_URL = "sqlite:///runs.db"
"""
DJANGO_URLS = """
from django.urls import path

from orders import views

urlpatterns = [path("ask/<int:order_id>", views.ask), path("answer/<str:run_id>", views.answer)]
"""
# What a browser does; the worker is there.
DJANGO_VISIT = """
from django.test import Client

from mysite.celery import orchestrator

client = Client()


def answer(run_id, data):
    return client.post(f"/answer/{run_id}", data, content_type="application/json")


asked = client.post("/ask/7")
run = orchestrator.get_run(asked.json()["run"])
print(asked.status_code, run.result(timeout=30).status)
print(answer(run.id, {"yes": "perhaps"}).status_code, answer("no-such-run", {"yes": True}).status_code)
print(answer(run.id, {"yes": True}).status_code, run.get(timeout=30))
print(answer(run.id, {"yes": False}).status_code, orchestrator.runs.list(resource_id="order-7").total)
"""
FLASK_VISIT = """
from flask_shop import flask_app

client, orchestrator = flask_app.test_client(), flask_app.extensions["orchestrator"]


def decide(run_id, agreed):
    return client.post(f"/refunds/{run_id}/decision", json={"agreed": agreed}).status_code


def begin(amount):
    return orchestrator.get_run(client.post("/refunds", json={"amount": amount}).get_json()["run"])


print(begin(20).get(timeout=30))
run = begin(500)
print(run.result(timeout=30).status, decide(run.id, "perhaps"), decide("no-such-run", True))
print(decide(run.id, False), run.get(timeout=30), decide(run.id, True))
print(client.post("/refunds", json={"amount": "much"}).get_json()["code"])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with every file that the pages show, its servers replaced by what needs none."""
    for name, text in BLOCKS.items():
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        for server, embedded in EMBEDDED.items():
            text = text.replace(server, embedded)
        place.write_text(text, encoding="utf-8")
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    """Return what a Python process in this folder prints; it has to end well."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": path}
    env.pop("PYTEST_ADDOPTS", None)  # this run's, not those of a run in there
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_a_worker(folder: Path, imports: str, line: str) -> str:
    """Return what a line prints that runs beside a worker."""
    return python(folder, "-c", imports + WITH_WORKER.format(line=line))


@pytest.mark.parametrize("page", TUTORIALS)
def test_every_block_is_a_file_and_none_is_left_out(page: str) -> None:
    """A block without a name would not be tested."""
    assert len(BLOCK.findall(PAGES[page])) == PAGES[page].count("```python")


def test_the_proof_is_the_example_that_is_tested_with_a_real_worker() -> None:
    """`tests/workers/test_kill_it.py` kills the worker of this file."""
    assert BLOCKS["kill_it.py"] == (ROOT / "examples" / "kill_it" / "kill_it.py").read_text(encoding="utf-8")


def test_the_picture_is_that_of_the_first_workflow_while_it_waits(project: Path) -> None:
    """The README says which command draws it."""
    start = "from trip import *\nwith Orchestrator(store='sqlite:///trips.db', workflows=[trip]) as orchestrator:\n    "
    python(project, "-c", start + "orchestrator.create_run(trip, run_id='may').start('Lisbon')")
    options = ["--store", "sqlite:///trips.db", "--workflows", "trip:trip"]
    drawn = python(project, "-c", "from orchestrator.cli import main; main()", *options, "graph", "--run", "may")
    assert PICTURE.findall(README) == [drawn]


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_python(name: str) -> None:
    """Also those that need a server are complete."""
    ast.parse(BLOCKS[name])


def test_every_example_is_a_file_of_its_own() -> None:
    """Two of one name would hide each other."""
    names = [name for name, _ in BLOCK.findall(SHOWN)]
    assert len(names) == len(set(names))


def test_examples_share_no_database() -> None:
    """Else the worker of one would take the messages of another."""
    used = [set(re.findall(r"redis://localhost:6379/\d", text)) for text in BLOCKS.values()]
    assert all(one.isdisjoint(other) for number, one in enumerate(used) for other in used[:number])
    assert set().union(*used) == set(EMBEDDED)


@pytest.mark.parametrize("name, printed", PRINTED.findall(SHOWN))
def test_a_block_prints_what_the_page_says(project: Path, name: str, printed: str) -> None:
    """The output that stands below a block is the block's."""
    assert python(project, name) == printed


def test_the_block_without_output_runs_in_this_process(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its third attempt succeeds."""
    from orchestrator import Orchestrator

    monkeypatch.chdir(project)
    fetching = runpy.run_path("fetching.py")["fetching"]
    with Orchestrator(workflows=[fetching]) as orchestrator:
        assert orchestrator.create_run(fetching).start("url").unwrap() == "url at attempt 3"


def test_the_client_finds_what_the_worker_did(project: Path) -> None:
    """`delay`, `get`, `events` and `runs.list` against a worker."""
    printed = on_a_worker(project, "from shop import app", "import client").splitlines()
    assert "{'payment': 'charged 39.80', 'sku': 'lamp'}" in printed
    assert "workflow-step-result charge" in printed
    assert printed[-1] == "1"


def test_existing_tasks_are_steps_and_a_workflow_is_a_task(project: Path) -> None:
    """`self.retry()` of the task leads to another attempt; the caller has nothing of this library."""
    said = "print(result.get(timeout=10))  # "
    wanted = next(line.removeprefix(said) for line in BLOCKS["by_name.py"].splitlines() if line.startswith(said))
    assert on_a_worker(project, "from billing import app", "import by_name") == f"{wanted}\n"


def test_django_views_start_and_resume_runs(project: Path) -> None:
    """The modules that the page shows, in a project as Celery's guide makes it."""
    for name, text in {
        "mysite/__init__.py": "from .celery import app as celery_app\n",
        "mysite/settings.py": DJANGO_SETTINGS,
        "mysite/urls.py": DJANGO_URLS,
        "orders/__init__.py": "",
        "visit.py": DJANGO_VISIT,
    }.items():
        (project / name).write_text(text, encoding="utf-8")
    imports = (
        "from mysite import celery_app as app\nimport django; django.setup()\napp.loader.import_default_modules()\n"
    )
    assert on_a_worker(project, imports, "import visit").splitlines() == [
        "202 suspended",
        "400 404",
        "202 order 7 confirmed",
        "409 1",
    ]


def test_flask_views_start_and_resume_runs(project: Path) -> None:
    """`current_app` in a step is the app that was made."""
    (project / "visit.py").write_text(FLASK_VISIT, encoding="utf-8")
    assert on_a_worker(project, "from flask_shop import app\n", "import visit").splitlines() == [
        "20 refunded",
        "suspended 400 404",
        "202 500 refused 409",
        "INPUT_INVALID",
    ]


def test_the_tests_that_are_shown_pass(project: Path) -> None:
    """With the fixture that comes with the package."""
    assert "2 passed" in python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_checkout.py")


def test_the_command_lines_follow_the_example_before_them(project: Path) -> None:
    """Typed one after the other, below what `expenses.py` has left."""
    python(project, "expenses.py")
    page = PAGES["docs/getting-started.md"]
    settings = dict(setting.split("=", 1) for line in EXPORT.findall(page) for setting in shlex.split(line))
    run = "from orchestrator.cli import main; main()"
    said = []
    for line in COMMAND.findall(page):
        words = [sys.executable, "-c", run, *shlex.split(line)]
        env = {**os.environ, **settings}
        said.append(subprocess.run(words, cwd=project, env=env, capture_output=True, timeout=TIMEOUT, check=False))
    assert [done.returncode for done in said] == [4, 0, 0, 0, 0], said
    assert b"900 approved by Ada" in said[3].stdout
    assert said[4].stdout.startswith(b"flowchart TD")


def demo(**servers: str) -> str:
    """Return what `make demo` prints into a pipe; it has to end well."""
    env = {name: value for name, value in os.environ.items() if name not in ("BROKER_URL", "ORCHESTRATOR_STORE")}
    done = subprocess.run(
        [sys.executable, "examples/orders/demo.py"],
        cwd=ROOT,
        env=env | servers,
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def says_all(printed: str) -> None:
    """Both processes of the demo say what they should."""
    first, second = printed.split("--- process 2 of 2")
    assert "3 orders wait for a person, the others are done" in first
    assert "What waits for a person" in second
    ended = re.findall(r"--- process (\d+) has ended", printed)
    assert len(set(ended)) == 2
    assert "order A-1002: refused by Katherine Johnson" in second
    assert "9 orders fulfilled, 1 refused, 4 set aside" in second
    assert "approve" in second[second.index("The steps of the run") :]
    assert "flowchart TD" in second
    assert "the invoice gets through at attempt 2" in printed
    assert "All as expected" in printed
    assert "\x1b" not in printed


def test_the_order_example_goes_on_in_a_second_process() -> None:
    """`make demo` as it is without any server, into a pipe."""
    says_all(demo())


@pytest.mark.slow
def test_the_order_example_does_the_same_on_worker_processes(redis_server: RedisServer) -> None:
    """`BROKER_URL=redis://… make demo` starts two pairs of them, one after the other."""
    says_all(demo(BROKER_URL=redis_server.url(7)))


def test_the_reference_configuration_is_read_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting in `celeryconfig.py` follows a comment, and an app takes them all."""
    from celery import Celery

    monkeypatch.setenv("BROKER_URL", "amqp://guest@localhost//")
    monkeypatch.setenv("ORCHESTRATOR_STORE", "memory://")
    names = list(settings_of(ROOT / "celeryconfig.py"))
    values = {name: value for name, value in runpy.run_path(str(ROOT / "celeryconfig.py")).items() if name in names}
    app = Celery("reference", config_source=values, set_as_current=False)
    assert {name for name in names if app.conf.get(name) is None} <= {"result_backend"}
    assert app.conf.broker_transport_options == {"confirm_publish": True}
    from orchestrator import Orchestrator

    with Orchestrator(app) as orchestrator:
        assert orchestrator.settings.lease_seconds == app.conf.orchestrator_lease_seconds


def settings_of(path: Path) -> list[str]:
    """The settings of a configuration file; each has to stand below a comment, at most two other settings between."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = []
    for number, line in enumerate(lines):
        if found := re.match(r"\s*(\w+) = ", line):
            assert any(above.lstrip().startswith("#") for above in lines[max(0, number - 3) : number]), line
            names.append(found[1])
    return names
