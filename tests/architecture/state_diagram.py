"""The state diagram of `docs/architecture.md`, drawn from the table of statuses.

`python -m tests.architecture.state_diagram` writes it anew.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.rules.transitions import RUN_TABLE, TABLE, Kind

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
COMMAND = "python -m tests.architecture.state_diagram"
BEGIN = f"<!-- state diagram: `{COMMAND}` writes it from orchestrator/rules/transitions.py -->"
END = "<!-- end of the state diagram -->"


def draw() -> str:
    """Draw what may follow what: first the statuses of an activation, then those of a run."""
    steps = [f"    {before or '[*]'} --> {after}" for before, row in TABLE.items() for after in row.may_follow]
    ends = [f"    {status} --> [*]" for status, row in TABLE.items() if row.kind is Kind.ENDED]
    runs = [f"    {before} --> {after}" for before, row in RUN_TABLE.items() for after in row.may_follow]
    return "\n".join([*_figure(steps + ends), "", "And of a run:", "", *_figure(["    [*] --> pending", *runs])])


def _figure(lines: list[str]) -> list[str]:
    return ["```mermaid", "stateDiagram-v2", *lines, "```"]


def with_diagram(text: str) -> str:
    """Return the document with the diagram as it is now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{draw()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_diagram(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
