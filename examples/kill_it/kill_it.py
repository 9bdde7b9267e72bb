"""Packs ten parcels, one a second. Kill the worker with -9 while it packs, start another one, and it goes on."""

import time

from celery import Celery

from orchestrator import Context, Orchestrator, Workflow, step

app = Celery("kill_it", broker="redis://localhost:6379/8")


@step
def list_parcels(count: int) -> list[int]:
    return list(range(1, count + 1))


@step
def pack(number: int, ctx: Context) -> str:
    print(f"packing parcel {number}{' again: its worker died' if ctx.restarted else ''}")
    time.sleep(1)
    return f"parcel {number}"


@step
def load(parcels: list[str]) -> str:
    return f"{len(parcels)} parcels on the van"


delivery = Workflow("delivery", input=int).then(list_parcels).foreach(pack).then(load).commit()
orchestrator = Orchestrator(app, store="sqlite:///kill_it.db", workflows=[delivery], lease_seconds=3)

if __name__ == "__main__":
    print(delivery.delay(10).get(timeout=120))
