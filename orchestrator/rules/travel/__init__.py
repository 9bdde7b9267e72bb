"""Time travel: what a run looks like when it goes on from one of its steps, in a new generation.

* `request`       what a caller asks for, and the target that step ids lead to
* `carried_over`  what stands before the target or beside it, and what of that is kept
* `plan`          the way to the target, the target, and what follows it

Nothing here reads a store: the plan is made of the activations that were read, and the run header guards it.
"""

from orchestrator.rules.travel.plan import TravelPlan, plan_travel
from orchestrator.rules.travel.request import StepOverride, TravelRequest, entry_before, find_target

__all__ = ["StepOverride", "TravelPlan", "TravelRequest", "entry_before", "find_target", "plan_travel"]
