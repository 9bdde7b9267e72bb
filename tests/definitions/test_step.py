"""`step`: what it reads from a function, and what it refuses."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import pytest
from annotated_types import Gt
from celery import Signature

from orchestrator import Context, Step, TripWire, step
from tests.definitions.models import Approval, Order, Receipt, Reservation, charge, reserve

if TYPE_CHECKING:
    from somewhere import Unseen


def test_a_step_takes_its_id_schemas_and_description_from_the_function() -> None:
    """`@step` alone needs nothing but the function."""
    assert isinstance(reserve, Step)
    assert (reserve.id, reserve.component, reserve.description) == ("reserve", "STEP", "Hold the goods back.")
    assert (reserve.input, reserve.output, reserve.resume, reserve.suspend) == (Order, Reservation, None, None)


def test_calling_a_step_calls_the_plain_function() -> None:
    """A step is its function for whoever calls it."""
    assert reserve(Order(sku="a")) == Reservation(lines=[Order(sku="a")])
    assert inspect.signature(reserve) == inspect.signature(reserve.fn)
    assert (reserve.__name__, reserve.__doc__) == ("reserve", reserve.fn.__doc__)


def test_options_stand_in_the_decorator_or_beside_the_function() -> None:
    """`@step(...)` and `step(fn, id=...)` take the same options."""

    @step(
        id="other", description="Said.", retries=3, retry_delay=1.5, queue="q", priority=4, time_limit=30, inline=True
    )
    def fn(data: int) -> int:
        return data

    assert (fn.id, fn.description, fn.retries, fn.retry_delay) == ("other", "Said.", 3, 1.5)
    assert (fn.queue, fn.priority, fn.time_limit, fn.inline) == ("q", 4, 30, True)
    again = step(fn.fn, id="again")
    assert (again.id, again.fn, again.retries, again.inline) == ("again", fn.fn, None, None)


def test_declared_schemas_win_over_annotations() -> None:
    """`Any` switches a schema off."""

    def fn(data: Order, ctx: Context[Approval]) -> Receipt: ...  # type: ignore[empty-body]

    said = step(fn, input=int, output=Any, resume=str, suspend=Order)
    assert (said.input, said.output, said.resume, said.suspend) == (int, None, str, Order)
    by_annotation = step(fn)
    assert (by_annotation.input, by_annotation.output, by_annotation.resume) == (Order, Receipt, Approval)


def test_an_annotation_keeps_its_metadata() -> None:
    """Annotated constraints are part of the schema."""

    @step
    def fn(data: Annotated[int, Gt(0)]) -> None: ...

    assert fn.input == Annotated[int, Gt(0)]
    assert fn.output is type(None)


def test_what_says_nothing_is_none() -> None:
    """Missing annotations, Any and object declare nothing."""

    @step
    def fn(data, ctx: Context):  # type: ignore[no-untyped-def]
        ...

    @step
    def vague(data: Any) -> object: ...

    assert (fn.input, fn.output, fn.resume) == (None, None, None)
    assert (vague.input, vague.output) == (None, None)


def test_the_output_of_a_generator_is_its_return_value() -> None:
    """What it yields is streamed and has no part in the output."""

    @step
    def declared(data: int) -> Generator[str, None, Receipt]:
        yield "a"
        return Receipt(total=data)

    @step
    def undeclared(data: int) -> Iterator[str]:
        yield "a"

    assert (declared.output, undeclared.output) == (Receipt, None)


def test_the_output_of_a_coroutine_is_what_it_returns() -> None:
    """So it is of a function that returns an awaitable."""

    def late(data: int) -> Coroutine[Any, Any, Receipt]: ...  # type: ignore[empty-body]

    assert charge.output is Receipt
    assert step(late).output is Receipt


def test_a_return_annotation_that_promises_nothing_declares_nothing() -> None:
    """Never, a bare Generator and an awaitable of anything promise nothing."""

    def never(data: int) -> NoReturn:
        raise ValueError

    def bare(data: int) -> Generator:  # type: ignore[type-arg]
        yield 1

    def late(data: int) -> Awaitable[Any]: ...  # type: ignore[empty-body]

    def later(data: int) -> Awaitable: ...  # type: ignore[empty-body, type-arg]

    def listed(data: int) -> Iterable[int]: ...  # type: ignore[empty-body]

    assert [step(fn).output for fn in (never, bare, late, later)] == [None] * 4  # type: ignore[call-overload]
    assert step(listed).output == Iterable[int]


def test_a_function_that_does_not_tell_its_signature_declares_nothing() -> None:
    """Nor does the constructor of a class declare an output."""
    assert (step(dict, id="dict").input, step(dict, id="dict").output) == (None, None)
    assert step(Order, id="order", input=Any).output is None


def test_an_async_generator_is_refused_when_decorated() -> None:
    """It cannot return a value."""

    async def fn(data: int) -> AsyncIterator[int]:
        yield data

    with pytest.raises(TypeError, match=r"'fn' is an async generator.*ctx\.write"):
        step(fn)


def test_a_lambda_needs_an_id() -> None:
    """Its name says nothing."""
    with pytest.raises(TypeError, match="a lambda needs an id"):
        step(lambda data: data)
    assert step(lambda data: data, id="same").id == "same"


def test_an_annotation_that_cannot_be_resolved_is_named_with_its_remedy() -> None:
    """The remedy is tried out, and helps."""

    def takes(data: Unseen) -> int: ...  # type: ignore[empty-body]

    def makes(data: int) -> list[Unseen]: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match=r"step 'takes'.*'Unseen'.*pass input=\.\.\."):
        step(takes)
    with pytest.raises(TypeError, match=r"step 'makes'.*'list\[Unseen\]'.*pass output=\.\.\."):
        step(makes)
    assert step(takes, input=Order).output is int
    assert step(makes, output=Any).input is int


def test_a_type_that_is_given_as_text_is_resolved_where_the_function_stands() -> None:
    """The function's own annotations are resolved there too."""

    def fn(data: Any, ctx: Context) -> Any: ...

    made = step(fn, input="Order", output="list[Order]", resume="Approval", suspend="Order")
    assert (made.input, made.output, made.resume, made.suspend) == (Order, list[Order], Approval, Order)
    for keyword in ("input", "output", "resume", "suspend"):
        with pytest.raises(TypeError, match=rf"step 'fn'.*'Unseen'.*pass {keyword}=\.\.\., the type itself"):
            step(fn, **{keyword: "Unseen"})


def test_a_context_with_an_unresolvable_resume_type_is_still_the_context() -> None:
    """Only its resume type has to be said."""

    def fn(ctx: Context[Unseen], data: int) -> int: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match=r"pass resume=\.\.\."):
        step(fn)
    assert step(fn, resume=Approval).input is int


def test_a_closure_can_name_types_of_the_function_around() -> None:
    """Python keeps only those that the function itself uses."""

    class Local:
        pass

    def fn(data: Local) -> Local:
        return Local()

    assert step(fn).input is Local


def test_input_and_context_come_in_any_order() -> None:
    """Each of them may be missing."""
    ctx = Context(input=3)
    cases: list[tuple[Any, Any]] = [
        (lambda data, ctx: (data, ctx), (3, ctx)),
        (lambda ctx, data: (data, ctx), (3, ctx)),
        (lambda data: data, 3),
        (lambda ctx: ctx, ctx),
        (lambda: "nothing", "nothing"),
    ]
    for fn, expected in cases:
        assert step(fn, id="fn").invoke(3, ctx) == expected


def test_a_step_without_an_input_declares_none() -> None:
    """The annotation of the context is not an input schema."""

    @step
    def fn(context: Context[Approval]) -> int: ...  # type: ignore[empty-body]

    assert (fn.input, fn.resume) == (None, Approval)


def test_a_subclass_of_context_is_a_context() -> None:
    """Its resume type is that of its base."""

    class Mine(Context[Approval]):
        pass

    def fn(it: Mine | None, data: int) -> int: ...  # type: ignore[empty-body]

    fn.__annotations__["it"] = Mine | None
    assert (step(fn).resume, step(fn).input) == (Approval, int)


def test_a_third_parameter_is_refused_by_name() -> None:
    """The message says what is taken for what."""

    def fn(order: int, extra: int, ctx: Context) -> int: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match="fn: the parameter 'extra' is neither the input .*'order'"):
        step(fn)


def test_two_contexts_are_refused_by_name() -> None:
    """A function gets one."""

    def fn(one: Context, two: Context) -> int: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match="the parameter 'two' is a second context"):
        step(fn)


def test_other_parameters_with_defaults_are_left_alone() -> None:
    """They may also stand between those that are filled."""

    @step
    def fn(data: int, scale: int = 10, *, offset: int = 1, ctx: Context) -> Any:
        return data * scale + offset, ctx.run_id

    assert fn.invoke(2, Context(run_id="r")) == (21, "r")
    captured = [step(lambda ctx, n=n: n, id="fn") for n in (1, 2)]
    assert [each.invoke("data", Context()) for each in captured] == [1, 2]


def test_a_first_parameter_with_a_default_is_the_input() -> None:
    """A default there is for callers of the plain function."""
    fn = step(lambda data=None, ctx=None: (data, ctx is not None), id="fn")
    assert fn.invoke(5, Context()) == (5, True)


def test_partials_methods_builtins_and_objects_can_be_steps() -> None:
    """Anything can be a step that can be called with one value."""

    class Shop:
        def sell(self, order: Order, ctx: Context) -> Receipt: ...  # type: ignore[empty-body]

        def __call__(self, data: int) -> int:
            return data + 1

    def priced(currency: str, data: int) -> str:
        return f"{data} {currency}"

    assert step(Shop().sell).input is Order
    assert step(Shop(), id="shop").invoke(1, Context()) == 2
    assert step(Shop(), id="shop").output is int
    assert step(functools.partial(priced, "EUR")).invoke(1, Context()) == "1 EUR"
    assert step(functools.partial(priced, "EUR")).id == "priced"
    assert step(len).invoke([1, 2], Context()) == 2
    assert step(lambda *args: args, id="any").invoke(1, Context()) == (1,)


def test_only_wanted_exceptions_are_tried_again() -> None:
    """`retry_on` and `no_retry_on` say which; a tripwire never is."""
    fn = step(lambda: None, id="fn", retry_on=LookupError, no_retry_on=(KeyError,))
    errors = (IndexError(), KeyError(), ValueError())
    assert [fn.is_retryable(error) for error in errors] == [True, False, False]
    assert step(lambda: None, id="fn").is_retryable(ValueError())
    assert not step(lambda: None, id="fn").is_retryable(TripWire("no"))


@pytest.mark.parametrize("option", ["retries", "retry_delay", "retry_backoff_max", "time_limit", "soft_time_limit"])
def test_negative_numbers_are_refused(option: str) -> None:
    """The message names the option."""
    options: dict[str, Any] = {option: -1}
    with pytest.raises(ValueError, match=f"step 'fn': {option} must be 0 or more, not -1"):
        step(lambda: None, id="fn", **options)


@pytest.mark.parametrize("given", [[LookupError, OSError], (LookupError, OSError), {LookupError, OSError}])
def test_a_list_of_exceptions_is_taken_as_celery_takes_it(given: Any) -> None:
    """For `retry_on` and `no_retry_on`, whatever collection it is."""
    fn = step(lambda: None, id="fn", retry_on=given)
    assert [fn.is_retryable(error) for error in (KeyError(), OSError(), ValueError())] == [True, True, False]
    assert not step(lambda: None, id="fn", no_retry_on=given).is_retryable(KeyError())


@pytest.mark.parametrize("given", [None, "ConnectionError", [ConnectionError, "OSError"], lambda error: True, [1], int])
@pytest.mark.parametrize("option", ["retry_on", "no_retry_on"])
def test_what_is_no_exception_is_refused(option: str, given: Any) -> None:
    """In a run it would hide the step's own error."""
    options: dict[str, Any] = {option: given}
    with pytest.raises(TypeError, match=f"step 'fn': {option} takes exception classes, one or a list of them, not"):
        step(lambda: None, id="fn", **options)


@pytest.mark.parametrize(
    "option", ["retries", "retry_delay", "retry_backoff", "time_limit", "soft_time_limit", "priority"]
)
def test_texts_are_no_numbers(option: str) -> None:
    """As they come from an environment variable."""
    options: dict[str, Any] = {option: "3"}
    with pytest.raises(TypeError, match=f"step 'fn': {option} is a (whole )?number, not '3'"):
        step(lambda: None, id="fn", **options)


@pytest.mark.parametrize("fn", [lambda: None, Signature("tasks.add")], ids=["function", "task"])
def test_options_of_the_message_have_its_types(fn: Any) -> None:
    """A broker would take some of them, and nobody would find the message."""
    with pytest.raises(TypeError, match="step 'fn': queue is the name of one, not 5"):
        step(fn, id="fn", queue=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="step 'fn': priority is a whole number, not '9'"):
        step(fn, id="fn", priority="9")  # type: ignore[call-overload]


@pytest.mark.parametrize("option", ["inline", "retry_jitter"])
def test_a_text_is_no_truth_value(option: str) -> None:
    """Every text but the empty one counts as true, "no" as well."""
    options: dict[str, Any] = {option: "no"}
    with pytest.raises(TypeError, match=f"step 'it': {option} is True or False, not 'no'"):
        step(lambda data: data, id="it", **options)


def test_a_step_is_not_decorated_twice() -> None:
    """A thing that is no function is refused as well."""
    with pytest.raises(TypeError, match="'reserve' is a step already"):
        step(reserve)
    with pytest.raises(TypeError, match="takes a function, not 3"):
        step(3)  # type: ignore[call-overload]
