"""Runs the whole service on one machine: Redis, an S3 server, API and workers as children of one process."""
