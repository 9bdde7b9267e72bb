"""What is told of runs: spans, numbers and log records."""
