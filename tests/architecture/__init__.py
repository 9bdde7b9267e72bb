"""Tests of the house itself: layers, packages, documents, what gets installed."""
