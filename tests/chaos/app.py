"""The module that the workers of a round are started with."""

from __future__ import annotations

from tests.chaos.setup import load

app, orchestrator = load().open()
