"""The commands, by themselves and as Celery's plug-in."""
