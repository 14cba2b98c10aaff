"""Celery workers: thin shells around the library in `model`."""
