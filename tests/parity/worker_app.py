"""The app module of the worker processes: every workflow of the parity tests, over the servers of the environment."""

from __future__ import annotations

import os

from orchestrator import Orchestrator
from tests.parity.flows import all_workflows
from tests.parity.harness import TIMES, make_app

app = make_app(os.environ["BROKER_URL"], os.environ["RESULT_BACKEND"])
orchestrator = Orchestrator(app, store=os.environ["ORCHESTRATOR_STORE"], workflows=all_workflows(), **TIMES)
