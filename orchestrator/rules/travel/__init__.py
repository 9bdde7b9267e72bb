"""Time travel: what a run looks like when it goes on from one of its steps."""

from orchestrator.rules.travel.carried_over import StepOverride, TravelRequest, entry_before
from orchestrator.rules.travel.plan import TravelPlan, find_target, plan_travel

__all__ = ["StepOverride", "TravelPlan", "TravelRequest", "entry_before", "find_target", "plan_travel"]
