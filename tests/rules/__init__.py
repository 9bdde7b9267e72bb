"""Tests of the rules, function by function, without a store."""
