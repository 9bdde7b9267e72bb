"""Mutation testing of the rules and of the scheduler: small faults, one at a time, that a quick test must notice."""
