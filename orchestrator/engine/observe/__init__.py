"""Observers of runs: they make spans and metrics for OpenTelemetry. Their faults are logged and never fail a run."""
