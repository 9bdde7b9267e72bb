"""The versions of Celery, of its companions and of Python that the library is tested with (`make matrix`)."""
