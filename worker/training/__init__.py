"""Trains adapters."""
