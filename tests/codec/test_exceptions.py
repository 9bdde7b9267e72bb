"""Exceptions travel as exceptions: class, text, attributes, cause; without a stack and without running their code."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from concurrent.futures.process import _RemoteTraceback
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from orchestrator import errors
from orchestrator.codec import decode, encode, error_to_dict
from orchestrator.codec.exceptions import MAX_TYPE_NAME
from orchestrator.errors import GraphInvalid, InputInvalid, Issue, RemoteError, ResumeAmbiguous, TripWire


def travel(error: BaseException) -> Any:
    """Return the exception after a journey."""
    return decode(encode(error))


def raised(error: BaseException) -> BaseException:
    """Return the exception with a traceback, as steps leave it."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - interrupts too
        return caught


class ApiError(Exception):
    def __init__(self, status: int, *, url: str) -> None:
        super().__init__(f"{url} answered {status}")
        self.statusCode = status
        self.headers = {"retry-after": [1, None]}
        self.price = Decimal("1.5")
        self.span = (1, ("a",))


class Picky(Exception):
    """Neither `__new__` nor `__init__` takes what is left of it."""

    def __new__(cls, first: int, second: int) -> Picky:
        assert first
        return super().__new__(cls, first, second)

    def __init__(self, first: int, second: int) -> None:
        raise_if = first / second
        super().__init__(raise_if)


class Slotted(Exception):
    __slots__ = ("__hidden", "empty", "limit")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.__hidden = "h"

    def __str__(self) -> str:
        return f"over {self.limit} {self.__hidden}"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    reason: str


class Talker(Exception):
    """Its text comes from an attribute that cannot travel."""

    def __init__(self) -> None:
        super().__init__("args")
        self.response = object()

    def __str__(self) -> str:
        return f"talk {self.response.__class__.__name__}"


class Prefixed(Exception):
    def __str__(self) -> str:
        return f"prefix: {self.args[0]!r}"


# -- class, text and attributes ---------------------------------------------------------------------------------------


def test_attributes_and_args_come_back_with_their_types() -> None:
    back = travel(raised(ApiError(429, url="http://x")))
    assert type(back) is ApiError
    assert str(back) == "http://x answered 429"
    assert back.args == ("http://x answered 429",)
    assert vars(back) == {
        "statusCode": 429,
        "headers": {"retry-after": [1, None]},
        "price": Decimal("1.5"),
        "span": (1, ("a",)),
    }
    assert back.__traceback__ is None


@pytest.mark.parametrize(
    "error",
    [
        Exception(),
        ValueError("one"),
        ValueError("one", 2, None),
        ValueError((1, 2)),
        ValueError(1.5, "\ud83d\ude00", float("inf")),
        KeyError("k"),
        IndexError("out"),
        OSError(2, "No such file", "a.txt"),
        OSError("only text"),
        ConnectionRefusedError(111, "refused"),
        TimeoutError("late"),
        ImportError("no", name="n", path="p"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        SyntaxError("bad", ("f.py", 3, 1, "x =")),
        StopIteration(4),
        json.JSONDecodeError("bad", "{}", 1),
        subprocess.CalledProcessError(2, ["ls", "-l"], b"out"),
        asyncio.QueueFull(),
        Slotted(3),
        Slotted(None),
        Frozen("why"),
        Prefixed("p"),
        TripWire("stop", retry=True, metadata={"a": [1]}, processor_id="p1"),
        TripWire("stop"),
    ],
    ids=repr,
)
def test_class_and_text_come_back(error: Exception) -> None:
    back = travel(raised(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert travel(back).args == back.args


def test_fields_of_exceptions_made_in_c_come_back() -> None:
    back = travel(OSError(2, "No such file", "a.txt"))
    assert (back.errno, back.strerror, back.filename) == (2, "No such file", "a.txt")
    assert travel(ImportError("no", name="n")).name == "n"
    assert travel(StopIteration(4)).value == 4
    assert travel(SystemExit(3)).attributes == {"code": 3}


def test_slots_come_back_and_empty_ones_stay_empty() -> None:
    back = travel(Slotted(3))
    assert back.limit == 3
    assert not hasattr(back, "empty")


def test_no_constructor_runs() -> None:
    original = Exception.__new__(Picky, 1, 0)
    back = travel(original)
    assert type(back) is Picky
    assert back.args == (1, 0)


def test_a_class_made_in_a_function_is_found_and_of_several_the_last() -> None:
    def make() -> type[Exception]:
        class Local(Exception):
            pass

        return Local

    first, second = make(), make()
    assert type(travel(second("x"))) is second
    assert type(travel(first("x"))) is second


def test_a_nested_class_is_found() -> None:
    assert type(travel(Outer.Inner("x"))) is Outer.Inner


class Outer:
    class Inner(Exception):
        pass


def test_what_cannot_travel_is_left_out() -> None:
    error = ApiError(500, url="u")
    vars(error).update(
        request=object(), secret=SecretStr("s"), lock=[object()], fine=1, stack="at line 3", traceback="t"
    )
    back = travel(error)
    assert "fine" in vars(back)
    assert not {"request", "secret", "lock", "stack", "traceback"} & set(vars(back))


def test_an_arg_that_cannot_travel_leaves_the_text() -> None:
    culprit = object()
    assert str(travel(ValueError(culprit))) == str(ValueError(culprit))
    assert str(travel(ValueError("a", culprit))) == str(ValueError("a", culprit))
    assert str(travel(ValueError(Outer))) == str(ValueError(Outer))


def test_a_text_that_needs_what_is_left_out_is_kept_by_a_stand_in() -> None:
    back = travel(Talker())
    assert str(back) in ("talk object", "talk AttributeError")
    again = travel(travel(back))
    assert str(again) == str(back)


def test_an_exception_that_cannot_say_its_text_still_travels() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    back = travel(Mute())
    assert isinstance(back, RemoteError)
    assert "Mute" in str(back)


def test_an_attribute_that_looks_like_a_tag_survives() -> None:
    error = ValueError("x")
    vars(error)["$date"] = {"$date": 1}
    assert vars(travel(error)) == {"$date": {"$date": 1}}


def test_attributes_may_be_models_and_errors() -> None:
    class Info(BaseModel):
        at: datetime

    error = ValueError("x")
    error.info = Info(at=datetime(2024, 1, 1))  # type: ignore[attr-defined]
    error.inner = [KeyError("k")]  # type: ignore[attr-defined]
    back = travel(error)
    assert back.info == {"at": datetime(2024, 1, 1)}
    assert repr(back.inner) == "[KeyError('k')]"


def test_exceptions_travel_anywhere_inside_a_value() -> None:
    back = decode(encode({"failures": [ValueError("a"), {"x": KeyError("b")}], "n": float("nan")}))
    assert repr(back["failures"]) == "[ValueError('a'), {'x': KeyError('b')}]"


@given(
    st.lists(st.text() | st.integers() | st.floats(allow_nan=False) | st.none() | st.tuples(st.integers()), max_size=3)
)
def test_any_plain_args_come_back(args: list[Any]) -> None:
    back = travel(ValueError(*args))
    assert back.args == tuple(args)
    assert str(back) == str(ValueError(*args))


# -- where it came from -----------------------------------------------------------------------------------------------


def chain(length: int) -> Exception:
    error = Exception("0")
    for number in range(1, length):
        outer = Exception(str(number))
        outer.__cause__ = error
        error = outer
    return error


def test_the_cause_chain_comes_back() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ApiError(1, url="u") from inner
    except ApiError as caught:
        back = travel(caught)
    assert repr(back.__cause__) == "KeyError('inner')"
    assert back.__suppress_context__


def test_the_context_comes_back_unless_it_is_suppressed() -> None:
    error = ValueError("x")
    error.__context__ = KeyError("k")
    assert repr(travel(error).__context__) == "KeyError('k')"
    assert travel(error).__cause__ is None
    error.__suppress_context__ = True
    assert travel(error).__context__ is None


def test_a_frozen_exception_gets_its_cause() -> None:
    error = Frozen("why")
    BaseException.__setattr__(error, "__cause__", KeyError("k"))
    assert repr(travel(error).__cause__) == "KeyError('k')"


def test_a_long_chain_is_cut() -> None:
    back: BaseException | None = travel(chain(500))
    texts = []
    while back is not None:
        texts.append(str(back))
        back = back.__cause__
    assert texts[:3] == ["499", "498", "497"]
    assert len(texts) == 20


def test_exceptions_that_refer_to_each_other_end() -> None:
    one, two = Exception("one"), Exception("two")
    one.__cause__, two.__cause__ = two, one
    one.peers = two.peers = [one, two]  # type: ignore[attr-defined]
    one.me = one  # type: ignore[attr-defined]
    back = travel(one)
    assert str(back.__cause__) == "two"
    assert back.__cause__.__cause__ is None
    assert error_to_dict(one)["cause"] == {"name": "Exception", "message": "two"}


def test_notes_come_back() -> None:
    error = ValueError("x")
    error.add_note("while packing")
    assert travel(error).__notes__ == ["while packing"]
    assert error_to_dict(error)["notes"] == ["while packing"]


def test_a_group_keeps_its_parts() -> None:
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [ApiError(5, url="u")])])
    back = travel(group)
    assert back.__class__ is ExceptionGroup
    assert str(back) == str(group)
    assert repr(back.exceptions[0]) == "ValueError('a')"
    inner: Any = back.exceptions[1]
    assert inner.exceptions[0].statusCode == 5


def test_a_group_of_interrupts_comes_back_as_an_ordinary_group() -> None:
    back = travel(BaseExceptionGroup("g", [KeyboardInterrupt("stop")]))
    assert back.__class__ is ExceptionGroup
    part: Any = back.exceptions[0]
    assert part.name == "KeyboardInterrupt"


def test_a_group_keeps_its_attributes() -> None:
    group = ExceptionGroup("g", [ValueError("a")])
    group.tries = 3  # type: ignore[attr-defined]
    assert travel(group).tries == 3


class Many(ExceptionGroup[Exception]):
    pass


def test_a_group_of_a_class_that_is_not_here_keeps_its_parts() -> None:
    text = encode(Many("g", [ValueError("a")]))
    assert type(decode(text)) is Many
    back = decode(text.replace("tests.codec.test_exceptions.Many", "elsewhere.Many"))
    assert type(back) is RemoteError
    assert repr(back.exceptions) == "(ValueError('a'),)"
    assert repr(travel(back).exceptions) == "(ValueError('a'),)"


def test_the_object_that_lacks_a_name_does_not_travel() -> None:
    class Big:
        data = "x" * 100

    with pytest.raises(AttributeError) as caught:
        Big().missing  # type: ignore[attr-defined]  # noqa: B018
    back = travel(caught.value)
    assert back.name == "missing"
    assert back.obj is None


def test_fields_that_cannot_be_written_are_passed_over() -> None:
    error = BlockingIOError(11, "busy", 7)
    back = travel(error)
    assert type(back) is BlockingIOError
    assert str(back) == str(error)
    text = encode(OSError(2, "x")).replace('"errno":2', '"start":2,"errno":2')
    assert decode(text).errno == 2
    wrong = encode(UnicodeDecodeError("utf-8", b"a", 0, 1, "bad")).replace('"start":0', '"start":"none"')
    assert type(decode(wrong)) is UnicodeDecodeError


def test_a_module_that_waits_to_be_loaded_is_not_loaded() -> None:
    spec = importlib.util.find_spec("antigravity")
    assert spec is not None
    assert spec.loader is not None
    lazy = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    lazy.exec_module(module)
    sys.modules["antigravity"] = module
    try:
        assert type(decode(encode(ValueError()).replace('"ValueError"', '"antigravity.Fly"'))) is RemoteError
        assert type(module) is not type(sys)
    finally:
        del sys.modules["antigravity"]


def test_no_stack_is_written() -> None:
    error = raised(ApiError(1, url="u"))
    error.__cause__ = _RemoteTraceback("Traceback (most recent call last): File x")  # type: ignore[arg-type]
    text = encode(error)
    assert "raceback" not in text
    assert __file__ not in text


# -- classes that are not here ----------------------------------------------------------------------------------------


@pytest.fixture
def from_elsewhere() -> str:
    """The text of an exception whose class is not loaded in this process."""
    error = ApiError(429, url="u")
    error.code = "E1"  # type: ignore[attr-defined]
    error.details = {"a": 1}  # type: ignore[attr-defined]
    error.name = "own"  # type: ignore[attr-defined]
    error.add_note("n")
    error.__cause__ = KeyError("k")
    return encode(error).replace("tests.codec.test_exceptions.ApiError", "elsewhere.errors.ApiError")


def test_a_stand_in_keeps_name_text_attributes_cause_and_notes(from_elsewhere: str) -> None:
    back = decode(from_elsewhere)
    assert type(back) is RemoteError
    assert back.name == "elsewhere.errors.ApiError"
    assert str(back) == back.message == "u answered 429"
    assert (back.statusCode, back.code, back.details) == (429, "E1", {"a": 1})
    assert back.attributes["name"] == "own"
    assert back.attributes["span"] == (1, ("a",))
    assert repr(back.__cause__) == "KeyError('k')"
    assert back.__notes__ == ["n"]


def test_a_stand_in_travels_on_without_loss(from_elsewhere: str) -> None:
    again = travel(decode(from_elsewhere))
    assert vars(again) == vars(decode(from_elsewhere))
    text = encode(again).replace("elsewhere.errors.ApiError", "tests.codec.test_exceptions.ApiError")
    assert type(decode(text)) is ApiError


def test_nothing_is_imported_and_nothing_is_called() -> None:
    assert "this" not in sys.modules
    for name in (
        "this.Zen",
        "os.system",
        "builtins.exec",
        "subprocess.Popen",
        "eval",
        "",
        ".",
        "a.",
        "sys.modules",
        "object",
    ):
        text = encode(ValueError("x")).replace('"ValueError"', json.dumps(name))
        assert type(decode(text)) is RemoteError
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt("k"), SystemExit(1), GeneratorExit(), asyncio.CancelledError("c")], ids=repr
)
def test_what_is_no_exception_comes_back_as_a_stand_in(error: BaseException) -> None:
    back = travel(error)
    assert type(back) is RemoteError
    assert back.name.endswith(type(error).__name__)
    assert str(back) in (type(error).__name__, f"{type(error).__name__}: {error}")


def test_a_validation_error_comes_back_with_its_issues_and_without_the_input() -> None:
    class Login(BaseModel):
        password: int
        user: str

    with pytest.raises(ValidationError) as caught:
        Login.model_validate({"password": "hunter2"})
    back = travel(caught.value)
    assert back.name.endswith("ValidationError")
    assert [(issue.path, issue.kind) for issue in back.issues] == [("password", "int_parsing"), ("user", "missing")]
    assert str(back).startswith("2 validation errors for Login:\n- password: ")
    assert "hunter2" not in encode(caught.value) + json.dumps(error_to_dict(caught.value))
    assert vars(travel(back)) == vars(back)


# -- our own ----------------------------------------------------------------------------------------------------------


def own_errors() -> list[Exception]:
    plain = [
        cls("text", workflow_id="w", run_id="r", actual_status="success", more=[1])
        for cls in vars(errors).values()
        if isinstance(cls, type)
        and issubclass(cls, errors.OrchestratorError)
        and cls not in (GraphInvalid, InputInvalid, RemoteError)
    ]
    return [
        *plain,
        GraphInvalid(["first", "second"], workflow_id="w"),
        InputInvalid([Issue("a.b", "missing", "Field required"), Issue("", "x", "y")], run_id="r"),
        ResumeAmbiguous(candidates=["a", "b.c"], run_id="r"),
        errors.PayloadTooLarge("big", where="input", size=3, limit=2),
        errors.ValueNotSerializable("odd", where="input", field="a.b"),
        RemoteError("text", name="elsewhere.Error", attributes={"a": (1, Decimal(2)), "details": {"b": 1}}),
        RemoteError("text"),
        TripWire("why", retry=True, metadata={"a": Decimal(1)}, processor_id="p"),
    ]


@pytest.mark.parametrize("error", own_errors(), ids=lambda error: type(error).__name__)
def test_our_own_errors_survive_exactly(error: Exception) -> None:
    back = travel(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert getattr(back, "code", None) == getattr(error, "code", None)


# -- for readers without Python ---------------------------------------------------------------------------------------


def test_an_error_is_shown_without_a_stack() -> None:
    error = raised(ApiError(429, url="u"))
    vars(error).update(
        _private=1, at=datetime(2024, 1, 1), lock=object(), stack="s", inner=KeyError("i"), n=float("nan")
    )
    error.__cause__ = OSError(2, "gone", "f")
    shown = error_to_dict(error)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown == {
        "name": "ApiError",
        "message": "u answered 429",
        "statusCode": 429,
        "headers": {"retry-after": [1, None]},
        "price": "1.5",
        "span": [1, ["a"]],
        "at": "2024-01-01T00:00:00",
        "inner": {"name": "KeyError", "message": "'i'"},
        "n": "NaN",
        "cause": {
            "name": "FileNotFoundError",
            "message": "[Errno 2] gone: 'f'",
            "errno": 2,
            "strerror": "gone",
            "filename": "f",
        },
    }


def test_a_stand_in_is_shown_like_its_original(from_elsewhere: str) -> None:
    shown = error_to_dict(decode(from_elsewhere))
    assert shown["name"] == "ApiError"
    assert (shown["statusCode"], shown["code"], shown["details"]) == (429, "E1", {"a": 1})


def test_our_own_errors_are_shown_with_code_and_details() -> None:
    shown = error_to_dict(InputInvalid([Issue("a", "missing", "Field required")], run_id="r"))
    assert shown["code"] == "INPUT_INVALID"
    assert shown["details"] == {"run_id": "r"}
    assert shown["issues"] == [{"path": "a", "kind": "missing", "message": "Field required"}]


def test_a_group_is_shown_with_its_parts() -> None:
    shown = error_to_dict(ExceptionGroup("g", [ValueError("a"), KeyError("b")]))
    assert [part["name"] for part in shown["exceptions"]] == ["ValueError", "KeyError"]


def test_a_long_chain_is_shown_cut() -> None:
    assert json.dumps(error_to_dict(chain(500))).count('"cause"') < 30


@pytest.mark.parametrize(
    "error, text",
    [(SystemExit(3), "SystemExit: 3"), (SystemExit(), "SystemExit"), (KeyboardInterrupt("k"), "KeyboardInterrupt: k")],
)
def test_an_exit_says_that_it_is_one(error: BaseException, text: str) -> None:
    """Its own text is the bare code, and its class does not come back."""
    back = travel(error)
    assert str(back) == back.message == text
    assert travel(back).message == text  # not once more for each journey


def test_the_name_of_a_type_has_a_bound() -> None:
    """For the store, and for the search of the class, which takes the square of the length."""
    named = type("Long" * 10_000, (Exception,), {})
    back = travel(named("why"))
    assert isinstance(back, RemoteError)
    assert (len(back.name), str(back)) == (MAX_TYPE_NAME, "why")
    assert len(travel(RemoteError("why", name="a." * 10_000)).name) == MAX_TYPE_NAME
    stored = encode(ValueError("why")).replace('"ValueError"', json.dumps("a." * 50_000))
    began = time.perf_counter()
    assert str(decode(stored)) == "why"
    assert time.perf_counter() - began < 0.2
