"""Makes the pictures of docs/flower.md: real runs of the order example in a real Flower, seen by a real browser.

    make flower-shots

It starts a redis-server, a worker and Flower of its own on free ports and ends them again. It needs redis-server,
Chromium (Debian: `apt-get install chromium`) and Flower (in the extra `dev`), and says which of them is missing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ORDERS = ROOT / "examples" / "orders"
IMAGES = ROOT / "docs" / "images"
LIMIT = 60.0  # seconds for anything
LARGEST = 200 * 1024  # bytes of a picture
DONE, WAITING = "orders-monday", "orders-tuesday"  # ids of the two runs
BROWSER = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=0.85",
    "--virtual-time-budget=8000",
]


class Missing(Exception):
    """Something that the pictures need is not on this machine."""


def found(*names: str, hint: str) -> str:
    """The path of a program. Raises `Missing`."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise Missing(f"{' or '.join(names)} is not on the path: {hint}")


def free_port() -> int:
    """A port that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """Return what the condition gives once it is true. Raises TimeoutError."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if given := condition():
                return given
        time.sleep(0.2)  # pages and processes outside: there is nothing to wait on but the look
    raise TimeoutError(f"{what} took longer than {LIMIT:.0f} s")


@contextlib.contextmanager
def process(name: str, command: list[str], folder: Path, cwd: Path, env: dict[str, str]) -> Iterator[None]:
    """A program that runs meanwhile; its log goes into the folder."""
    with (folder / f"{name}.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


class Flower:
    """Flower over HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str) -> Any:
        """Return the answer of its interface."""
        with urllib.request.urlopen(f"{self.url}/api/{path}", timeout=10) as answer:
            return json.load(answer)

    def state(self, run_id: str) -> str:
        """The state of a task."""
        try:
            return str(self.ask(f"task/info/{run_id}")["state"])
        except urllib.error.HTTPError:
            return ""

    def shoot(self, chromium: str, path: str, name: str, height: int, folder: Path) -> None:
        """Take a picture of a page."""
        target = IMAGES / f"{name}.png"
        words = [chromium, *BROWSER, f"--user-data-dir={folder / name}", f"--window-size=1280,{height}"]
        words += [f"--screenshot={target}", f"{self.url}/{path}"]
        target.unlink(missing_ok=True)
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
        if not target.exists():
            raise RuntimeError(f"{chromium} made no picture of {path}:\n{done.stderr[-2000:]}")
        size = target.stat().st_size
        if size > LARGEST:
            raise RuntimeError(f"{target.name} has {size} bytes, more than {LARGEST}")
        print(f"{target.relative_to(ROOT)}: {size // 1024} KB")


def run_the_orders(flower: Flower) -> None:
    """One run to its end, with a person's decisions; one that waits for them."""
    sys.path.insert(0, str(ORDERS))
    from app import app, orchestrator  # type: ignore[import-not-found]

    decisions = json.loads((ORDERS / "decisions.json").read_text(encoding="utf-8"))
    with orchestrator:
        for run_id in (DONE, WAITING):
            run = orchestrator.create_run("orders", run_id=run_id)
            result = run.start({"file": "orders.jsonl"}, timeout=LIMIT)
            if result.status != "suspended":
                raise RuntimeError(f"{run_id} is {result.status} and not suspended")
            wait_for(f"the row of {run_id}", lambda run_id=run_id: flower.state(run_id) == "SUSPENDED")
        run = orchestrator.get_run(DONE)
        for label in result.resume_labels:
            run.submit_resume(decisions[label], label=label)
        result = wait_for(f"the end of {DONE}", run.ready) and run.result(timeout=LIMIT)
        if result.status != "success":
            raise RuntimeError(f"{DONE} is {result.status}: {result.error}")
        wait_for(f"the end of {DONE} in Flower", lambda: flower.state(DONE) == "SUCCESS")
    app.close()


def take(folder: Path) -> None:
    """Start everything, run the orders, take the pictures."""
    chromium = found("chromium", "chromium-browser", "google-chrome", hint="apt-get install chromium")
    redis = found("redis-server", hint="apt-get install redis-server")
    if importlib.util.find_spec("flower") is None:
        raise Missing("Flower is not installed: pip install flower")
    redis_port, flower = free_port(), Flower(free_port())
    servers = {
        "BROKER_URL": f"redis://127.0.0.1:{redis_port}/0",
        "ORCHESTRATOR_STORE": f"redis://127.0.0.1:{redis_port}/1",
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    os.environ.update(servers)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    celery = [sys.executable, "-m", "celery", "-A", "app"]
    store = [redis, "--bind", "127.0.0.1", "--port", str(redis_port), "--save", "", "--appendonly", "no"]
    port = flower.url.rsplit(":", 1)[1]
    worker = [*celery, "worker", "-E", "--concurrency=2", "--hostname=worker1@shop", "--loglevel=INFO"]
    watching = [*celery, "flower", "--address=127.0.0.1", f"--port={port}"]
    IMAGES.mkdir(exist_ok=True)
    with (
        process("redis", store, folder, folder, env),
        process("worker", worker, folder, ORDERS, env),
        process("flower", watching, folder, ORDERS, env),
    ):
        try:
            wait_for("Flower with its worker", lambda: flower.ask("workers?refresh=1"))
            run_the_orders(flower)
            [repeated] = list(flower.ask(f"tasks?search=state:RETRY%20kwargs:{DONE}"))[:1]
            # The page takes a name from its address; what follows it is in the search field as if it had been typed.
            flower.shoot(chromium, f"tasks?name=orders%20kwargs:{DONE}", "flower-tasks", 940, folder)
            flower.shoot(chromium, f"task/{DONE}", "flower-run", 1400, folder)
            flower.shoot(chromium, f"task/{WAITING}", "flower-suspended", 1080, folder)
            flower.shoot(chromium, f"task/{repeated}", "flower-retry", 915, folder)  # the stack names folders
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-25:], sep="\n", file=sys.stderr)
            raise


def main() -> int:
    """Take the pictures; 1 where something is missing."""
    with tempfile.TemporaryDirectory(prefix="flower-shots-", ignore_cleanup_errors=True) as folder:
        try:
            take(Path(folder))
        except Missing as error:
            print(f"flower-shots: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
