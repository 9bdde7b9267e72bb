"""Hostile and damaged input: `docs/security.md` names these tests, threat by threat."""
