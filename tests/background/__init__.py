"""Tests of threads and timers across forks."""
