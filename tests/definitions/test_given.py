"""The arguments of an `Orchestrator`: mistakes are refused where they are made, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import Orchestrator, Workflow
from tests.definitions.models import reserve

FLOW = Workflow("w").then(reserve).commit()


@pytest.mark.parametrize("given", ["redis://:secret@host/0", [FLOW], FLOW])
def test_what_is_no_app_is_told_where_it_goes(given: Any) -> None:
    """A URL is never shown: it may hold a password."""
    with pytest.raises(
        TypeError, match=r"is a Celery app, not a \w+: a store's URL goes to `store=`, workflows"
    ) as caught:
        Orchestrator(given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", [FLOW, "w", None])
def test_workflows_are_a_list(given: Any) -> None:
    """A single workflow is refused with the remedy."""
    with pytest.raises(TypeError, match=r"`workflows` takes a list of workflows: write workflows=\[\.\.\.\]"):
        Orchestrator(workflows=given)


@pytest.mark.parametrize("given", [[reserve], {"w": FLOW}, [FLOW, None]])
def test_a_list_of_workflows_holds_workflows(given: Any) -> None:
    """The first that is none is named."""
    with pytest.raises(TypeError, match=r"`workflows` takes a list of workflows, and .* is none"):
        Orchestrator(workflows=given)


def test_any_iterable_will_do() -> None:
    """It is walked once."""
    with Orchestrator(workflows=iter([FLOW])) as orchestrator:
        assert orchestrator.workflow("w") is FLOW
