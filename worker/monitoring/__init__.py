"""Metrics, GPU readings and the heartbeat."""
