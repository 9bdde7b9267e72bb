"""The models, steps and scopes that these tests speak of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from orchestrator import Context, step
from orchestrator.definitions.callables import Callback


class Order(BaseModel):
    sku: str
    qty: int = 1


class Reservation(BaseModel):
    lines: list[Order]


class Receipt(BaseModel):
    total: Decimal
    order: Order | None = None


class Approval(BaseModel):
    ok: bool


@step
def reserve(order: Order) -> Reservation:
    """Hold the goods back.

    More than a line.
    """
    return Reservation(lines=[order])


@step
async def charge(reservation: Reservation, ctx: Context) -> Receipt:
    return Receipt(total=Decimal(len(reservation.lines)))


@step
def notify(reservation: Reservation) -> None:
    return None


@step
def pack(line: Order) -> str:
    return line.sku


@step
def count(data: int) -> int:
    return data + 1


def always(data: Any) -> bool:
    return True


def never(data: Any) -> bool:
    return False


@dataclass
class Scope:
    """A `MapScope` whose values are all given beforehand."""

    data: Any = None
    inputs: Mapping[str | None, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def context_object(self) -> Context[Any]:
        return Context(input=self.data, state=self.state)

    def init(self, workflow_id: str | None) -> Any:
        return self.inputs.get(workflow_id)

    def result(self, step_id: str) -> tuple[bool, Any]:
        return step_id in self.results, self.results.get(step_id)

    @property
    def call(self) -> Callable[[Callback], Any]:
        return lambda callback: callback.call(self.data, self.context_object)
