"""Provides metrics, GPU readings and the heartbeat."""
