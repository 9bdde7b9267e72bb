"""Reading stored runs: values as their declared types, results, events and times. Nothing here writes or runs anything."""
