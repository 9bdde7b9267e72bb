"""The chaos harness: random workflows under faults, judged by what was worked out beforehand; knows public names only."""
