"""Kernel shared by the API, the workers and the library: free of FastAPI, Celery and torch."""
