"""Observing runs: what OpenTelemetry is told of them. A fault in here is logged and never becomes one of the run."""
