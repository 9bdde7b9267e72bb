"""Graph to Celery: which message a dispatch becomes, with which name, queue, headers and size."""
