"""The chaos harness: random workflows under faults, judged by what was worked out before. Knows public names only."""
