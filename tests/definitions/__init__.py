"""Definitions: what users write, and the graphs that follow."""
