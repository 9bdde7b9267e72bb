"""Activations and run headers are flat documents, and read back as they were written."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rules.graph import Route
from orchestrator.rules.model import (
    AWAITING,
    ENDED,
    FINAL,
    LIVE,
    Activation,
    ActivationFields,
    ActivationStatus,
    RunHeader,
    RunHeaderFields,
    StoredStatus,
    belongs,
    format_path,
    pack_route,
    parse_path,
    unpack_route,
    visits,
)

_BY_TYPE = {"str": st.text(), "int": st.integers(-(2**53), 2**53), "bool": st.booleans()}


def _any(kind: type[Activation] | type[RunHeader]) -> st.SearchStrategy[Activation | RunHeader]:
    return st.builds(kind, **{field.name: _BY_TYPE[str(field.type)] for field in fields(kind)})


@given(st.one_of(_any(Activation), _any(RunHeader)))
def test_a_document_reads_back(written: Activation | RunHeader) -> None:
    """It reads back through JSON, and with fields of a newer version."""
    doc = json.loads(json.dumps(written.doc()))
    assert type(written).parse(doc) == written
    assert type(written).parse({**doc, "of a newer version": 1}) == written


@pytest.mark.parametrize("kind", [Activation, RunHeader])
def test_documents_are_flat_and_leave_out_what_has_its_default(kind: type[Activation] | type[RunHeader]) -> None:
    """Texts, numbers and truth values are all that every store and every script can read."""
    assert kind().doc() == {}
    assert {str(field.type) for field in fields(kind)} <= set(_BY_TYPE)


def test_a_status_is_written_as_plain_text() -> None:
    """An enumeration reads back as the text that it equals."""
    doc = json.loads(json.dumps(Activation(status=ActivationStatus.RUNNING).doc()))
    assert doc == {"status": "running"}
    assert Activation.parse(doc).live is False
    assert Activation(path="0", status=ActivationStatus.RUNNING).live is True


@pytest.mark.parametrize("path, text", [((), ""), ((0,), "0"), ((0, 12, 3), "0.12.3")])
def test_a_path_is_text_with_dots(path: tuple[int, ...], text: str) -> None:
    assert format_path(path) == text
    assert parse_path(text) == path
    assert Activation(path=text).at == path


@given(
    st.builds(
        Route,
        st.text(),
        st.none() | st.text(),
        st.none() | st.integers(0, 9),
        st.none() | st.floats(0, 1e6),
        st.none() | st.floats(0, 1e6),
        st.none() | st.text(),
    )
)
def test_a_route_reads_back(route: Route) -> None:
    """What is absent is not written."""
    assert unpack_route(pack_route(route)) == route
    assert Activation(route=pack_route(route)).where == route


def test_no_route_reads_as_the_empty_one() -> None:
    assert unpack_route("") == Route("")


def test_every_status_is_of_one_kind() -> None:
    """No status is both live and awaiting, for one."""
    kinds = [LIVE, AWAITING, ENDED, {ActivationStatus.OPEN}]
    assert sum(map(len, kinds)) == len(ActivationStatus)
    assert frozenset().union(*kinds) == frozenset(ActivationStatus)


@pytest.mark.parametrize("state", StoredStatus)
def test_a_run_has_ended_in_a_final_status(state: StoredStatus) -> None:
    assert RunHeader(status=state).final is (state in FINAL)


@pytest.mark.parametrize(
    "child, ancestor, mine",
    [("", "", True), ("2", "", True), ("2.1", "2", True), ("1.1", "2", False), ("10", "1", False)],
)
def test_an_activation_belongs_to_the_present_visit_of_its_ancestor(child: str, ancestor: str, mine: bool) -> None:
    """Visits are compared as numbers, as far as the ancestor's goes."""
    assert belongs(Activation(visit=child), Activation(visit=ancestor)) is mine
    assert visits(Activation(visit="2.10")) == (2, 10)


@pytest.mark.parametrize("whole, some", [(Activation, ActivationFields), (RunHeader, RunHeaderFields)])
def test_a_commit_may_name_each_field_with_its_type_and_nothing_else(
    whole: type[Activation] | type[RunHeader], some: type[ActivationFields] | type[RunHeaderFields]
) -> None:
    """mypy checks a commit's fields against the second list, and the stores read and write the first."""
    hints = get_type_hints(whole)
    assert list(get_type_hints(some).items()) == [(field.name, hints[field.name]) for field in fields(whole)]
    assert not some.__required_keys__
