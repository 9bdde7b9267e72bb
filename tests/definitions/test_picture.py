"""`graph()` and `mermaid()`: a workflow as data and as a picture."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator import GraphInvalid, Workflow, constant, from_step, step, template
from tests.definitions.models import Order, always, charge, never, notify, pack, reserve


def whole() -> Workflow:
    """Build a workflow with every kind of block."""
    inner = Workflow("inner", version=3).then(pack).sleep_until(datetime(2030, 1, 1, tzinfo=UTC)).commit()
    return (
        Workflow("w", input=Order, description="All kinds.", version="2")
        .then(reserve)
        .parallel(charge, notify, allow_failure=True)
        .map({"receipt": from_step(charge), "text": template("a" * 2000), "one": constant(1)})
        .branch((always, step(always)), (lambda: True, inner))
        .foreach(step(len), concurrency=len)
        .do_until(step(never), never)
        .do_while("proj.tasks.double", always)
        .sleep(1.5)
        .sleep(len, id="nap")
        .wait_for_event("go", Order, timeout=60, on_timeout=step(lambda: 1, id="late"))
    )


def test_a_graph_is_plain_data() -> None:
    """It survives JSON, be the workflow committed or not."""
    graph = whole().graph()
    assert json.loads(json.dumps(graph)) == graph == whole().commit().graph()
    types = [entry["type"] for entry in graph["entries"]]
    assert types == ["step", "parallel", "map", "branch", "foreach", "loop", "loop", "sleep", "sleep", "wait"]
    about = {key: graph[key] for key in ("type", "id", "component", "description", "version")}
    assert about == {
        "type": "workflow",
        "id": "w",
        "component": "WORKFLOW",
        "description": "All kinds.",
        "version": "2",
    }


def test_every_entry_says_what_belongs_to_its_type() -> None:
    """That is the entries inside it, conditions, schemas and times."""
    graph = whole().graph()
    reserve_, parallel, map_, branch, foreach, until, while_, sleep, nap, wait = graph["entries"]
    assert graph["input"]["properties"].keys() == {"sku", "qty"} == reserve_["input"]["properties"].keys()
    assert (reserve_["description"], reserve_["component"]) == ("Hold the goods back.", "STEP")
    assert (parallel["allow_failure"], [entry["id"] for entry in parallel["entries"]]) == (True, ["charge", "notify"])
    assert (map_["id"], map_["sources"]["one"], len(map_["sources"]["text"])) == ("mapping_w_0", "constant 1", 1001)
    assert [arm["condition"] for arm in branch["arms"]] == ["always", "<lambda>"]
    nested = branch["arms"][1]["entry"]
    assert (nested["type"], nested["version"], nested["entries"][0]["id"]) == ("workflow", 3, "pack")
    assert nested["entries"][1]["until"] == "2030-01-01T00:00:00+00:00"
    assert (foreach["concurrency"], foreach["computed"], foreach["entry"]["id"]) == (None, "len", "len")
    assert (until["until"], until["condition"], while_["until"]) == (True, "never", False)
    assert (while_["entry"]["type"], while_["entry"]["task"]) == ("task", "proj.tasks.double")
    assert (sleep["seconds"], nap["seconds"], nap["computed"], nap["id"]) == (1.5, None, "len", "nap")
    assert (wait["event"], wait["timeout"], wait["on_timeout"]["id"]) == ("go", 60.0, "late")
    assert wait["schema"]["title"] == "Order"


def test_a_type_without_a_json_schema_is_named() -> None:
    """A picture never fails because of a type."""

    class Odd:
        pass

    [entry] = Workflow("w").then(step(always, input=Odd)).graph()["entries"]
    assert entry["input"] == {"title": "Odd"}


def test_a_picture_of_what_is_not_valid_says_why() -> None:
    """It raises the error that `commit` would raise."""
    with pytest.raises(GraphInvalid, match="is used 2 times"):
        Workflow("w").then(reserve).then(reserve).mermaid()


def test_a_picture_draws_every_kind_of_block() -> None:
    """The whole text is compared, line by line."""
    lines = [line.strip() for line in whole().mermaid().splitlines()]
    assert lines[:2] == ["flowchart TD", 'start(["start"])']
    for line in (
        'n0["reserve"]',
        'n1((" "))',
        "n1 --> n1_0",
        "n1_1 --> n1j",
        'n2[/"mapping_w_0"/]',
        'n3{"which?"}',
        'n3 -->|"always"| n3_0',
        'subgraph n3_1["inner (version 3)"]',
        'n3 -->|"#lt;lambda#gt;"| n3_1_0',
        'n3_1_1(["sleep_inner_0: until 2030-01-01T00:00:00+00:00"])',
        "n3_1_1 --> n3j",
        'subgraph n4["foreach, len at a time"]',
        "n3j --> n4_0",
        'n5{"until never?"}',
        'n5 -->|"no: again"| n5_0',
        'n5 -->|"yes"| n6_0',
        'n6_0["double (task)"]',
        'n6 -->|"yes: again"| n6_0',
        'n6 -->|"no"| n7',
        'n7(["sleep_w_0: 1.5 s"])',
        'n8(["nap: len"])',
        'n9{{"wait for go"}}',
        'n9 -->|"after 60 s"| n9_0',
        "n9 --> done",
        "n9_0 --> done",
    ):
        assert line in lines, line
    assert lines.count("end") == 2


def test_a_picture_is_deterministic_and_closed() -> None:
    """It is the same text each time, and every arrow ends at something drawn."""
    text = whole().mermaid()
    assert text == whole().commit().mermaid()
    drawn = {line.strip().split("(")[0].split("[")[0].split("{")[0] for line in text.splitlines() if "-->" not in line}
    drawn |= {name.removeprefix("subgraph ") for name in drawn}
    for line in text.splitlines():
        if "-->" in line:
            tail, _, head = line.strip().partition(" -->")
            assert {tail, head.split()[-1]} <= drawn


def test_a_picture_colours_entries_by_their_status() -> None:
    """Nested ones go by their dotted ids; unknown statuses and ids are left out."""
    text = whole().mermaid(
        {"reserve": "success", "charge": "success", "inner.pack": "failed", "x": "failed", "go": "?"}
    )
    lines = [line.strip() for line in text.splitlines()]
    assert "class n0,n1_0 success" in lines
    assert "class n3_1_0 failed" in lines
    assert sum(line.startswith("classDef ") for line in lines) == 2
    assert "class n3_1 running" in whole().mermaid({"inner": "running"})
    assert "classDef" not in whole().mermaid()


@pytest.mark.parametrize(
    "event, shown",
    [('say "hi"', "say #quot;hi#quot;"), ("a#1", "a#35;1"), ("<b>`x`", "#lt;b#gt;#96;x#96;"), ("a\nb", "a<br/>b")],
)
def test_texts_in_a_picture_are_escaped(event: str, shown: str) -> None:
    """They stand between double quotes."""
    workflow: Any = Workflow("w").wait_for_event(event, id="wait")
    assert f'n0{{{{"wait for {shown}"}}}}' in workflow.mermaid()
