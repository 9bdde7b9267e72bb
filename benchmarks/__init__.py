"""The speed of workflows beside that of Celery's own chains and chords. `README.md` says how to read the numbers."""
