"""Checks that a generated pair must pass."""
