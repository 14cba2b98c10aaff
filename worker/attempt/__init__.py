"""Implements one attempt at a record: claim, lease, retries, progress, completion."""
