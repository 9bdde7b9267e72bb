"""Conditions, map functions and computed settings are called like steps."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from orchestrator import Context
from orchestrator.definitions.bodies import Callback


def test_one_parameter_gets_the_data_unless_it_is_the_context() -> None:
    """The context is found by its name `ctx` or by its annotation."""
    ctx = Context(input=1)

    def annotated(it: Context[Any]) -> Any:
        return it

    def quoted(it: "Context[Any]") -> Any:  # noqa: UP037 - as users write it
        return it

    assert Callback(lambda value: value).call(1, ctx) == 1
    assert Callback(lambda ctx: ctx).call(1, ctx) is ctx
    assert Callback(annotated).call(1, ctx) is ctx
    assert Callback(quoted).call(1, ctx) is ctx


def test_a_name_is_known_for_pictures() -> None:
    """A function has its own name, an object that of its class."""
    assert Callback(len).name == "len"
    assert Callback(Mock()).name == "Mock"


def test_a_mock_gets_the_data() -> None:
    """It takes anything, so it takes the value."""
    mock = Mock(return_value=True)
    assert Callback(mock).call(4, Context())
    mock.assert_called_once_with(4)


def test_a_builtin_that_does_not_tell_its_parameters_gets_the_data() -> None:
    """`dict` has no signature."""
    assert Callback(dict).call([("a", 1)], Context()) == {"a": 1}


def test_what_cannot_be_called_is_refused() -> None:
    """Making the callback raises, not calling it."""
    with pytest.raises(TypeError, match="3 is not a function"):
        Callback(3)  # type: ignore[arg-type]


def test_an_unresolvable_annotation_does_not_matter_to_a_callback() -> None:
    """A callback validates nothing by its annotations."""

    def fn(data: Nowhere) -> bool:  # type: ignore[name-defined]  # noqa: F821
        return bool(data)

    assert Callback(fn).call(1, Context()) is True


def test_an_async_function_is_handed_back_as_a_coroutine() -> None:
    """The caller awaits it."""

    async def fn(data: int) -> int:
        return data

    coroutine = Callback(fn).call(1, Context())
    with pytest.raises(StopIteration, match="1"):
        coroutine.send(None)
