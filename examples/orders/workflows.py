"""The order pipeline: workflows inside a workflow, and the steps they are made of.

* `price`   one line of an order: ask for its price until the answer is fresh
* `packing` one order: pick, seal, label
* `fulfil`  one order that was accepted: pack and invoice it, side by side
* `order`   one order: price its lines, ask a person if it is large, then fulfil or decline it
* `orders`  a file of orders: set aside what is not valid, and run `order` for each of the others

Steps are plain functions. What goes in and out is said by annotations; it is checked on the way in, and comes back as
these types on the other side of the broker. Nothing here knows whether it runs in one process or on workers.
"""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from orchestrator import Context, Workflow, constant, from_input, from_step, step, template

HERE = Path(__file__).parent
LARGE = Decimal(500)  # from here on a person decides
PER_PARCEL = 6  # pieces

# A price list that answers like a remote one: the number says how often the answer is stale before it is fresh.
CATALOGUE = {
    "bulb": (Decimal("3.95"), 0),
    "cable": (Decimal("8.50"), 1),
    "chair": (Decimal("129.00"), 0),
    "desk": (Decimal("349.00"), 2),
    "lamp": (Decimal("44.90"), 1),
    "screws": (Decimal("0.12"), 0),
    "shelf": (Decimal("79.00"), 0),
}


# --- what is handed from step to step ------------------------------------------------------------------------------


class OrderFile(BaseModel):
    file: str = "orders.jsonl"


class Line(BaseModel):
    sku: str
    quantity: int = Field(gt=0)


class Order(BaseModel):
    number: str
    customer: str
    lines: list[Line] = Field(min_length=1)


class Rejected(BaseModel):
    line: int
    number: str
    reason: str


class Sorted(BaseModel):
    valid: list[Order]
    rejected: list[Rejected]


class Quote(BaseModel):
    sku: str
    quantity: int
    price: Decimal = Decimal(0)
    fresh: bool = False
    asked: int = 0


class PricedLine(BaseModel):
    sku: str
    quantity: int
    price: Decimal
    amount: Decimal


class Priced(BaseModel):
    order: Order
    lines: list[PricedLine]


class Basket(BaseModel):
    number: str
    customer: str
    lines: list[PricedLine]
    total: Decimal


class ApprovalRequest(BaseModel):
    """The facts that the person who decides gets."""

    number: str
    customer: str
    total: Decimal


class Approval(BaseModel):
    """The decision of a person: the data with which `approve` is resumed."""

    agreed: bool
    by: str
    discount: Decimal = Field(default=Decimal(0), ge=0, lt=1)  # a share: 0.03 is three per cent


class Decision(BaseModel):
    agreed: bool
    by: str
    discount: Decimal = Decimal(0)  # an amount


class Decided(BaseModel):
    basket: Basket
    decision: Decision


class Parcels(BaseModel):
    count: int
    label: str = ""


class Invoice(BaseModel):
    number: str
    amount: Decimal


class Receipt(BaseModel):
    number: str
    customer: str
    amount: Decimal
    decided_by: str
    parcels: int
    note: str


class Summary(BaseModel):
    receipts: list[Receipt]
    rejected: list[Rejected]
    total: Decimal


def pretend_to_work(seconds: float) -> None:
    """Stand for a call to another service."""
    time.sleep(seconds)


# --- one line: ask until the price is fresh ------------------------------------------------------------------------


@step
def look_up(quote: Quote, ctx: Context) -> Quote:
    """Ask for a price; the first answers may be stale."""
    pretend_to_work(0.02)
    price, stale = CATALOGUE[quote.sku]
    asked = ctx.iteration or 1
    return quote.model_copy(update={"price": price, "fresh": asked > stale, "asked": asked})


@step
def multiply(quote: Quote) -> PricedLine:
    """Price a line."""
    return PricedLine(sku=quote.sku, quantity=quote.quantity, price=quote.price, amount=quote.price * quote.quantity)


def is_fresh(quote: Quote) -> bool:
    return quote.fresh


price = (
    Workflow("price", input=Line, output=PricedLine, description="Price one line of an order")
    .map({"sku": from_input("sku"), "quantity": from_input("quantity"), "asked": constant(0)}, id="question")
    .do_until(look_up, is_fresh)
    .then(multiply)
    .commit()
)


# --- packing: a workflow of its own, used as a step ----------------------------------------------------------------


@step
def pick(decided: Decided) -> Parcels:
    """Count the parcels."""
    pretend_to_work(0.05)
    pieces = sum(line.quantity for line in decided.basket.lines)
    return Parcels(count=-(-pieces // PER_PARCEL))


@step
def print_label(parcels: Parcels, ctx: Context) -> Parcels:
    """Print the labels; `ctx.init_data` is the input of this workflow."""
    pretend_to_work(0.02)
    return parcels.model_copy(update={"label": f"{ctx.init_data.basket.number} x {parcels.count}"})


packing = (
    Workflow("packing", input=Decided, output=Parcels, description="Pack one order")
    .then(pick)
    .sleep(0.1, id="seal")  # a moment in the store, not a sleeping worker
    .then(print_label)
    .commit()
)


# --- an order that was accepted ------------------------------------------------------------------------------------


@step(retries=2, retry_delay=0.1)
async def send_invoice(decided: Decided, ctx: Context) -> Invoice:
    """Send the invoice, over a line that is bad at the first attempt for every seventh order."""
    basket = decided.basket
    if basket.number.endswith("7") and ctx.retry_count == 0:
        raise ConnectionError(f"the invoice of {basket.number} did not get through")
    if ctx.retry_count:
        ctx.write_event("invoice-repeated", {"number": basket.number, "attempt": ctx.retry_count + 1})
    return Invoice(number=f"INV-{basket.number}", amount=basket.total - decided.decision.discount)


fulfil = (
    Workflow("fulfil", input=Decided, output=Receipt, description="Pack and invoice one order")
    .parallel(packing, send_invoice)
    .map(
        {
            "number": from_input("basket.number"),
            "customer": from_input("basket.customer"),
            "amount": from_step(send_invoice, "amount"),
            "decided_by": from_input("decision.by"),
            "parcels": from_step(packing, "count"),
            "note": template("${input.packing.label}: ${steps.send_invoice.amount} EUR"),
        },
        id="receipt",
    )
    .commit()
)


# --- one order -----------------------------------------------------------------------------------------------------


@step
def add_up(priced: Priced, ctx: Context) -> Basket:
    """Add up the lines of an order, and tell the readers of the stream."""
    total = sum((line.amount for line in priced.lines), Decimal(0))
    ctx.write_event("order-total", {"number": priced.order.number, "lines": len(priced.lines), "total": str(total)})
    return Basket(number=priced.order.number, customer=priced.order.customer, lines=priced.lines, total=total)


@step(suspend=ApprovalRequest, resume=Approval)
def approve(basket: Basket, ctx: Context[Approval]) -> Decision:
    """Ask a person. Until a resume comes this order is a row in the store: no worker, message or process waits.

    The label is the caller's own name for the suspended step, here the order's number.
    """
    if not ctx.resumed:
        request = ApprovalRequest(number=basket.number, customer=basket.customer, total=basket.total)
        ctx.suspend(request, label=basket.number)  # never returns; resumed, the step runs again from the top
    answer = ctx.resume_data
    discount = (basket.total * answer.discount).quantize(Decimal("0.01"))
    return Decision(agreed=answer.agreed, by=answer.by, discount=discount)


@step
def accept() -> Decision:
    """Accept a small order; a step that needs no input takes none."""
    return Decision(agreed=True, by="rule")


@step
def decline(decided: Decided) -> Receipt:
    """Tell the customer that the order is refused."""
    basket, by = decided.basket, decided.decision.by
    return Receipt(
        number=basket.number, customer=basket.customer, amount=Decimal(0), decided_by=by, parcels=0, note="refused"
    )


def is_large(basket: Basket) -> bool:
    return basket.total >= LARGE


def is_small(basket: Basket) -> bool:
    return basket.total < LARGE


def is_agreed(decided: dict[str, Any]) -> bool:  # what a map has made is a dict; the step behind declares a model
    return bool(decided["decision"].agreed)


def is_refused(decided: dict[str, Any]) -> bool:
    return not decided["decision"].agreed


order = (
    Workflow("order", input=Order, output=Receipt, description="Handle one order")
    .map(lambda given: given.lines, id="lines")
    .foreach(price, concurrency=4)
    .map({"order": from_input(), "lines": from_step(price)}, id="priced")
    .then(add_up)
    .branch((is_large, approve), (is_small, accept))
    .map({"basket": from_step(add_up), "decision": from_step([approve, accept])}, id="decided")
    .branch((is_agreed, fulfil), (is_refused, decline))
    .map(lambda arms: next(iter(arms.values())), id="outcome")
    .commit()
)


# --- a file of orders ----------------------------------------------------------------------------------------------


@step
def read_file(source: OrderFile) -> list[str]:
    """Read the lines of the file, which is deployed with this module."""
    return (HERE / Path(source.file).name).read_text(encoding="utf-8").splitlines()


@step
def check(lines: list[str]) -> Sorted:
    """Sort the orders: those that can be handled, and those that are set aside with the reason."""
    result = Sorted(valid=[], rejected=[])
    for number, text in enumerate(lines, 1):
        found, reason = read_order(text)
        if found is None or reason:
            rejected = Rejected(line=number, number=found.number if found else number_in(text), reason=reason)
            result.rejected.append(rejected)
        else:
            result.valid.append(found)
    return result


def read_order(text: str) -> tuple[Order | None, str]:
    """An order as far as it can be read, and what is wrong with it."""
    try:
        found = Order.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return None, f"{place}: {first['msg']}" if place else "not JSON: the line is cut off"
    unknown = [line.sku for line in found.lines if line.sku not in CATALOGUE]
    return found, f"not in the catalogue: {', '.join(unknown)}" if unknown else ""


def number_in(text: str) -> str:
    """The order's number where one can be made out."""
    try:
        return str(json.loads(text).get("number", "?"))
    except ValueError:
        return "?"


@step
def summarize(receipts: list[Receipt], ctx: Context) -> Summary:
    """Add up the whole file; `ctx.result` is the output of an earlier step."""
    sorted_orders = ctx.result(check)
    return Summary(
        receipts=receipts,
        rejected=sorted_orders.rejected if sorted_orders else [],
        total=sum((receipt.amount for receipt in receipts), Decimal(0)),
    )


orders = (
    Workflow("orders", input=OrderFile, output=Summary, description="Handle a file of orders")
    .then(read_file)
    .then(check)
    .map(lambda found: found.valid, id="valid")
    .foreach(order, concurrency=6)  # an order that waits for a person keeps its place among the six
    .then(summarize)
    .commit()
)
