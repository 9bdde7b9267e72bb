"""Runs a selection of the tests with each set of versions, each in an environment of its own, and writes a table.

    python -m tests.matrix                       every set
    python -m tests.matrix --sets oldest newest  these
    python -m tests.matrix --write               and write what was seen into the table of docs/versions.md

Nothing but the standard library, as in `make.py`: what is tested is in the environments. They are kept in `.matrix/`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".matrix"
TABLE = ROOT / "docs" / "versions.md"
BEGIN, END = "<!-- the table of `make matrix` -->", "<!-- its end -->"

# What the tests need beside the library with its extras. Not `dev`: its linters have dependencies of their own.
TOOLS = (
    "pytest>=8.4",
    "pytest-celery>=1.2",
    "hypothesis>=6.100",
    "psutil>=6",
    "flask>=3.0",
    "django>=4.2",
    "greenlet>=3",
    "opentelemetry-sdk>=1.20",
)
EXTRAS = "sqlite,postgres,otel,secrets,zstd"
# The parity tests that ask most of Celery: waiting, fan-out, retries, nesting.
PARITY = "(susp or foreach or retry or nest) and (celery-redis or celery-rabbitmq)"
SHOWN = ("celery", "kombu", "redis", "pydantic", "SQLAlchemy", "psycopg", "pytest-celery")
_INSTALL_TIMEOUT, _TEST_TIMEOUT = 900, 1_500  # seconds


@dataclass(frozen=True)
class VersionSet:
    """Versions that are tested together: `pins` are given, pip chooses the others."""

    name: str
    pins: tuple[str, ...] = ()
    python: str = ""  # as in 3.12; empty: the one that runs this


OLDEST = (
    *("celery==5.3.4", "kombu==5.3.4", "redis==4.6.0", "pydantic==2.11.0", "SQLAlchemy==2.0.0", "alembic==1.13.0"),
    *("psycopg[binary]==3.1.8", "click==8.1.2", "rich==13.0.0"),
)
SETS = (
    VersionSet("oldest", OLDEST),
    VersionSet("celery-5.3", ("celery==5.3.*",)),
    VersionSet("celery-5.4", ("celery==5.4.*",)),
    VersionSet("celery-5.5", ("celery==5.5.*",)),
    VersionSet("celery-5.6", ("celery==5.6.*",)),
    VersionSet("newest"),
    VersionSet("python-3.12", python="3.12"),
    VersionSet("python-3.13", python="3.13"),
    VersionSet("python-3.14", python="3.14"),
)
GROUPS: Mapping[str, Sequence[str]] = {
    "workers": ("tests/workers",),
    "parity": ("tests/parity", "-k", PARITY),
    "readme": ("tests/test_readme.py",),
    "stores": (
        "tests/stores/test_redis.py",
        "tests/stores/test_redis_contract.py",
        "tests/stores/test_redis_cluster.py",
        "tests/stores/test_redis_sentinel.py",
        "tests/stores/test_redis_tls.py",
        "tests/stores/test_sql_contract.py",
    ),
}
# Warnings of old versions about newer Pythons and clients are theirs, and are no failures here.
OPTIONS = ("-q", "-m", "not chaos", "-o", "filterwarnings=default", "-p", "no:cacheprovider", "--no-header")


@dataclass
class Seen:
    """What came out of one set."""

    name: str
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)  # the last line of pytest, by group
    failed: list[str] = field(default_factory=list)  # the tests, or what went wrong before them
    skipped: str = ""  # the reason why nothing was run

    @property
    def is_good(self) -> bool:
        """True where nothing failed, or nothing was run."""
        return not self.failed


def find_python(version: str) -> str | None:
    """Return an interpreter of this version that works; None where the machine has none."""
    if not version:
        return getattr(sys, "_base_executable", None) or sys.executable
    names = [f"python{version}", *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
    if uv := shutil.which("uv"):
        found = subprocess.run([uv, "python", "find", version], capture_output=True, text=True, check=False)
        names.append(found.stdout.strip())
    for name in filter(None, names):
        path = shutil.which(name)
        says = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        if (
            path
            and subprocess.run([path, "-c", says], capture_output=True, text=True, check=False).stdout.strip()
            == version
        ):
            return path
    return None


def play(one: VersionSet, groups: Iterable[str]) -> Seen:
    """Make the environment of this set and run the tests of these groups in it."""
    seen = Seen(one.name)
    base = find_python(one.python)
    if base is None:
        seen.skipped = f"no Python {one.python} on this machine"
        return seen
    folder = HOME / one.name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = [*pip, "--editable", f"{ROOT}[{EXTRAS}]", *TOOLS, *one.pins]
    done = subprocess.run(wanted, cwd=ROOT, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=False)
    if done.returncode:
        seen.failed.append("pip: " + " ".join(done.stderr.split())[-500:])
        return seen
    _note_versions(seen, python)
    for group in groups:
        _run_group(seen, python, group)
    return seen


def _note_versions(seen: Seen, python: Path) -> None:
    script = (
        "import json, platform, sys; from importlib.metadata import version; "
        "print(json.dumps([platform.python_version(), {name: version(name) for name in sys.argv[1:]}]))"
    )
    said = subprocess.run([str(python), "-c", script, *SHOWN], capture_output=True, text=True, check=True).stdout
    seen.python, seen.versions = json.loads(said)


def _run_group(seen: Seen, python: Path, group: str) -> None:
    began = time.monotonic()
    command = [str(python), "-m", "pytest", *OPTIONS, *GROUPS[group]]
    log = HOME / f"{seen.name}-{group}.log"
    with log.open("w") as out:
        try:
            code = subprocess.run(
                command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=_TEST_TIMEOUT, env=_env(), check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    lines = log.read_text(errors="replace").splitlines()
    counts = next(
        (line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "nothing was run"
    )
    seen.groups[group] = re.sub(r" in [\d.]+s.*", "", counts.strip("= "))
    failed = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    if code and not failed:
        failed = [f"{group} ended with {code}: see {log}"]
    seen.failed += failed
    print(f"{seen.name}: {group}: {seen.groups[group]} ({time.monotonic() - began:.0f} s)", flush=True)
    for line in failed:
        print(f"  {line}", flush=True)


def _env() -> dict[str, str]:
    # A test that fails because of its time is no news about a version.
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def table(seen: Sequence[Seen]) -> str:
    """Return what was seen as a table in Markdown."""
    rows = ["| set | Python | " + " | ".join(SHOWN[:-1]) + " | result |", "|---|---|" + "---|" * len(SHOWN)]
    for one in seen:
        if one.skipped:
            rows.append(f"| {one.name} | " + " | " * len(SHOWN) + f"not run: {one.skipped} |")
            continue
        result = "; ".join(f"{group}: {said}" for group, said in one.groups.items())
        cells = [one.name, one.python, *(one.versions.get(name, "") for name in SHOWN[:-1]), result or one.failed[0]]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def write_table(text: str) -> None:
    """Put the table into the document."""
    document = TABLE.read_text()
    head, tail = document.partition(BEGIN)[0], document.partition(END)[2]
    TABLE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def main() -> None:
    """Run the sets that are asked for; ends with 1 where a test failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=[one.name for one in SETS], default=[one.name for one in SETS])
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--write", action="store_true", help=f"write the table into {TABLE.relative_to(ROOT)}")
    given = parser.parse_args()
    HOME.mkdir(exist_ok=True)
    seen = [play(one, given.groups) for one in SETS if one.name in given.sets]
    (HOME / "report.json").write_text(json.dumps([asdict(one) for one in seen], indent=1))
    print(table(seen))
    if given.write:
        write_table(table(seen))
    raise SystemExit(0 if all(one.is_good for one in seen) else 1)


if __name__ == "__main__":
    main()
