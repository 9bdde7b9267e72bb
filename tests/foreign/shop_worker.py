"""The worker of the shop."""

import os

from tests.foreign.shop import make

app, orchestrator = make(os.environ["FOREIGN_BROKER"], os.environ["FOREIGN_BACKEND"], os.environ["FOREIGN_STORE"])
