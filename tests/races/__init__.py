"""Claims raced by real processes that start at the same moment."""
