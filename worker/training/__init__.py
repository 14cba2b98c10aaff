"""Trainings of adapters."""
