"""One test per entry of the parity catalogue, each run once for every runtime."""
