"""The telemetry of runs: spans, metrics and log records."""
