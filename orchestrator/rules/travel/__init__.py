"""Time travel: what a run looks like when it goes on from one of its steps."""

from orchestrator.rules.travel.plan import TravelPlan, plan_travel
from orchestrator.rules.travel.request import StepOverride, TravelRequest, entry_before, find_target

__all__ = ["StepOverride", "TravelPlan", "TravelRequest", "entry_before", "find_target", "plan_travel"]
