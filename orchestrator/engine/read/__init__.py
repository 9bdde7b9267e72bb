"""Readers of stored runs: values as their declared types, results, events, times. Nothing here writes."""
