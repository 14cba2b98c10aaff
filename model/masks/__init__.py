"""Finds masks of defects, with a U²-Net or without."""
