"""Workflows of the catalogue's SCHEMA entries: what is checked, what is filled in, and what an error says."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from orchestrator import Context, Workflow, step
from tests.parity.calls import note


class Number(BaseModel):
    """A number one level down."""

    value: int


class Strict(BaseModel):
    """Two fields that have to be there."""

    required: str
    nested: Number


class NumberOrOne(BaseModel):
    """A number with a default."""

    value: int = 1


class Lenient(BaseModel):
    """A field that has to be there, and one that need not."""

    required: str
    nested: NumberOrOne = Field(default_factory=NumberOrOne)


class StartText(BaseModel):
    """A start that is text."""

    start: str


class StartNumber(BaseModel):
    """A start that is a number."""

    start: int


class Defaulted(BaseModel):
    """A single field, with a default."""

    defaulted_value: str = "default-value"


class Total(BaseModel):
    """The sum of a list."""

    input_value: int


class TwoRequired(BaseModel):
    """Two fields of different types that have to be there."""

    required_field: str
    number_field: int


class Nothing(BaseModel):
    """No field at all."""


@step(id="step1")
def never_reached(data: Any, ctx: Context) -> dict[str, str]:
    """Note the call that must not happen."""
    note(ctx, "step1")
    return {"result": "success"}


schema_01 = Workflow("schema-01", input=Strict, validate_inputs=True).then(never_reached).commit()


@step(id="step1")
def echo(data: Lenient) -> dict[str, Any]:
    """Return the input as it arrives."""
    return data.model_dump()


schema_02 = Workflow("schema-02", input=Lenient).then(echo).commit()


@step(id="step1")
def take_start(data: StartText, ctx: Context) -> dict[str, str]:
    """Note the call that must not happen."""
    note(ctx, "step1")
    return {"start": data.start}


@step(id="step2")
def take_start_again(data: StartText, ctx: Context) -> dict[str, str]:
    """Note the call that must not happen."""
    note(ctx, "step2")
    return {"result": data.start}


schema_03 = Workflow("schema-03", input=StartText).then(take_start).then(take_start_again).commit()


@step(id="step1")
def give_some_value() -> dict[str, str]:
    """Return a key that the next step does not know."""
    return {"some_value": "test"}


@step(id="step2")
def process_default(data: Defaulted) -> dict[str, str]:
    """Return the default, processed."""
    return {"result": f"{data.defaulted_value}-processed"}


schema_04 = Workflow("schema-04").then(give_some_value).then(process_default).commit()


@step(id="map")
def add_eleven(item: Number, ctx: Context) -> Number:
    """Add eleven."""
    note(ctx, "map")
    return Number(value=item.value + 11)


@step(id="final")
def finish(total: Total) -> dict[str, int]:
    """Return the sum."""
    return {"final_value": total.input_value}


schema_06 = (
    Workflow("schema-06", input=list[Number])
    .foreach(add_eleven)
    .map(lambda data: {"input_value": sum(item.value for item in data)}, id="map-step")
    .then(finish)
    .commit()
)


@step(id="step1")
def give_number(data: StartNumber) -> dict[str, int]:
    """Return the number."""
    return {"start": data.start}


schema_07 = (
    Workflow("schema-07", input=StartNumber)
    .then(give_number)
    .map(lambda data: {"start": data["start"]})
    .then(take_start_again)
    .commit()
)


@step(id="step1")
def need_two(data: TwoRequired, ctx: Context) -> dict[str, str]:
    """Note the call that must not happen."""
    note(ctx, "step1")
    return {"result": data.required_field}


schema_09 = Workflow("schema-09", input=Nothing).then(need_two).commit()
