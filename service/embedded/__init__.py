"""The whole service on one machine by one command: real Redis, real S3, API and worker as children of one process."""
