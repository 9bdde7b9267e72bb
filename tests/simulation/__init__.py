"""The protocol under faults: every order of events of a small run, over the real rules and the real memory store."""
