"""Streams of events: readers, watchers, what steps write, and how long a log is kept."""
