"""How fast workflows are beside Celery's own chains and chords. `README.md` says how to read the numbers."""
