# ruff: noqa: RUF001
"""Bytes of a state of 5 MB in each store, as it is and compressed: `python benchmarks/sizes.py`.

The state is made of orders with texts in several languages, the same at each call. SQLite has a file of its own, Redis
and PostgreSQL are those that REDIS_URL (its database should be empty) and POSTGRES_URL name; without one, the store is
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout in place of this folder

from orchestrator import Context, Orchestrator, Workflow, step  # noqa: E402
from orchestrator.codec import Packing, encode  # noqa: E402
from orchestrator.codec.packing import ZLIB, ZSTD, unpack  # noqa: E402
from orchestrator.host import new_run_id  # noqa: E402

SIZE = 5_000_000  # bytes of the state as JSON
WORDS = {
    "en": "please deliver the parcel to the neighbour on the second floor since nobody is at home before noon",
    "de": "bitte das Päckchen bei den Nachbarn im zweiten Stock abgeben weil vormittags niemand zu Hause ist",
    "pl": "proszę zostawić przesyłkę u sąsiadów na drugim piętrze ponieważ rano nikogo nie ma w domu",
    "ru": "пожалуйста оставьте посылку у соседей на втором этаже потому что до полудня никого нет дома",
    "ja": "午前中 は 誰 も いない ので 荷物 を 二階 の 隣人 に 預けて ください お願い します 電話 も 可能 です",
    "ar": "يرجى تسليم الطرد إلى الجيران في الطابق الثاني لأنه لا يوجد أحد في المنزل قبل الظهر",
}


def _line(dice: random.Random) -> dict[str, Any]:
    return {
        "sku": f"SKU-{dice.randrange(5000):05d}",
        "quantity": dice.randrange(1, 9),
        "cents": dice.randrange(90_000),
    }


def make_orders(size: int) -> list[dict[str, Any]]:
    """Make orders until their JSON has so many bytes."""
    dice, orders, sum_of = random.Random(1), list[dict[str, Any]](), 0
    while sum_of < size:
        language = dice.choice(list(WORDS))
        words = WORDS[language].split()
        order = {
            "id": str(UUID(int=dice.getrandbits(128))),
            "customer": {
                "number": dice.randrange(10**7),
                "language": language,
                "mail": f"c{dice.random():.9f}@shop.eu",
            },
            "placed_at": f"2026-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}T{dice.randrange(24):02d}:17Z",
            "lines": [_line(dice) for _ in range(dice.randrange(1, 6))],
            "note": " ".join(dice.choices(words, k=dice.randrange(4, 30))),
            "status": dice.choice(["paid", "packed", "sent", "returned"]),
        }
        orders.append(order)
        sum_of += len(json.dumps(order, ensure_ascii=False, separators=(",", ":")).encode())
    return orders


@step
def keep(size: int, ctx: Context) -> int:
    """Put the orders into the state."""
    ctx.set_state({"orders": make_orders(size)})
    return size


def stores() -> Iterator[tuple[str, str]]:
    """Give the names and the URLs of the stores that there are."""
    with tempfile.TemporaryDirectory() as folder:
        yield "SQLite", f"sqlite:///{folder}/runs.db"
    for name, variable in (("Redis", "REDIS_URL"), ("PostgreSQL", "POSTGRES_URL")):
        if url := os.environ.get(variable):
            yield name, url


def stored_bytes(name: str, orchestrator: Orchestrator, run_id: str) -> int:
    """Return the bytes of the state in the store itself; PostgreSQL compresses long texts by itself."""
    store: Any = orchestrator.store
    if name == "PostgreSQL":
        query = "SELECT sum(pg_column_size(text)) FROM {state} WHERE run_id = :run"
        return int(store._rows(query, run=run_id)[0][0])
    return sum(len(text.encode()) for text in store.state(run_id).values())


def measure(name: str, url: str, **settings: Any) -> dict[str, Any]:
    """Run the step once, and measure the state and the time of writing and reading it."""
    workflow = Workflow(f"sizes-{settings.get('compression', 'plain')}").then(keep).commit()
    with Orchestrator(store=url, workflows=[workflow], **settings) as orchestrator:
        run = orchestrator.create_run(workflow, run_id=new_run_id())
        begun = time.perf_counter()
        run.start(SIZE)
        wrote = time.perf_counter() - begun
        begun = time.perf_counter()
        assert run.result().state["orders"] == make_orders(SIZE)
        found = stored_bytes(name, orchestrator, run.run_id)
        sent = sum(len(text.encode()) for text in orchestrator.store.state(run.run_id).values())
        orchestrator.runs.delete(run.run_id)
    return {"store": name, **settings, "sent": sent, "kept": found, "seconds": round(wrote, 2)}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args()
    plain = encode(make_orders(SIZE))
    escaped = len(json.dumps(make_orders(SIZE), separators=(",", ":")))
    print(f"the state: {len(plain.encode()):,} bytes as UTF-8, {escaped:,} with escapes")
    for method in (ZLIB, ZSTD):
        begun = time.perf_counter()
        packed = Packing(threshold=1, method=method).pack(plain)
        took = time.perf_counter() - begun
        begun = time.perf_counter()
        unpack(packed)
        back = time.perf_counter() - begun
        print(f"{method}: {len(packed):,} bytes, {len(plain.encode()) / len(packed):.2f} to 1; ", end="")
        print(f"{took * 1000:.0f} ms to pack, {back * 1000:.0f} ms to unpack")
    cases: list[dict[str, Any]] = [{"compress_above_bytes": 0}, {"compression": ZLIB}, {"compression": ZSTD}]
    found = [measure(name, url, **settings) for name, url in stores() for settings in cases]
    for row in found:
        print(f"{row['store']:<12}{row.get('compression', 'plain'):<8}{row['sent']:>12,} sent{row['kept']:>12,} kept")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
