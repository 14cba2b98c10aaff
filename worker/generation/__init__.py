"""Runs generation jobs."""
