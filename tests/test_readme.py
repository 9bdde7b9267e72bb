"""What the README shows works: every Python block is run, and prints what it is said to print.

Each block is a file, named by its first line. Blocks that speak of servers run with an in-memory broker and SQLite,
on a real worker in a thread of a process of its own.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^```console\n\$ python (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = dict(BLOCK.findall(README))
TIMEOUT = 60
DEMO_TIMEOUT = 150  # four worker processes, one pair after the other

EMBEDDED = {
    "redis://localhost:6379/0": "memory://localhost/",
    "redis://localhost:6379/1": "sqlite:///runs.db",
    "redis://localhost:6379/2": "db+sqlite:///results.db",
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
INSTALLED_APPS = ["billing"]
CELERY_BROKER_URL = "memory://localhost/"
CELERY_ORCHESTRATOR_STORE = "sqlite:///runs.db"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with every file that the README shows, its servers replaced by what needs none."""
    for name, text in BLOCKS.items():
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        for server, embedded in EMBEDDED.items():
            text = text.replace(server, embedded)
        place.write_text(text, encoding="utf-8")
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    """What a Python process in this folder prints; it has to end well."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_a_worker(folder: Path, imports: str, line: str) -> str:
    """What a line prints that runs beside a worker."""
    return python(folder, "-c", imports + WITH_WORKER.format(line=line))


def test_every_block_is_a_file_and_none_is_left_out() -> None:
    """A block without a name would not be tested."""
    assert len(BLOCKS) == README.count("```python")


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_python(name: str) -> None:
    """Also those that need a server are complete."""
    ast.parse(BLOCKS[name])


@pytest.mark.parametrize("name, printed", PRINTED.findall(README))
def test_a_block_prints_what_the_readme_says(project: Path, name: str, printed: str) -> None:
    """The output that stands below a block is the block's."""
    assert python(project, name) == printed


def test_the_blocks_without_output_run_in_this_process(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating orchestrators and retrying."""
    python(project, "local.py")
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


def test_django_steps_are_found_and_run(project: Path) -> None:
    """The two modules that the README shows, in a project as Celery's guide makes it."""
    for name, text in {
        "mysite/__init__.py": "from .celery import app as celery_app\n",
        "mysite/settings.py": DJANGO_SETTINGS,
        "billing/__init__.py": "",
    }.items():
        (project / name).write_text(text, encoding="utf-8")
    imports = (
        "from mysite import celery_app as app\nimport django; django.setup()\napp.loader.import_default_modules()\n"
    )
    line = "from billing.workflows import confirmation; print(confirmation.delay(7).get(timeout=30))"
    assert on_a_worker(project, imports, line) == "order 7 confirmed\n"


def test_flask_steps_run_in_the_application_context(project: Path) -> None:
    """`current_app` is the app that was made."""
    line = "print(greeting.delay('Ada').get(timeout=30))"
    assert on_a_worker(project, "from flask_shop import app, greeting\n", line) == "Hello, Ada\n"


def demo(**servers: str) -> str:
    """What `make demo` prints into a pipe; it has to end well."""
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
    """`BROKER_URL=redis://… make demo`."""
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
