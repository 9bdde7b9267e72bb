"""Tests that start, kill and restart real worker processes."""
