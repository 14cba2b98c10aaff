"""Prepares photographs for the network: pixels, crops, placement, copy-paste initialisation."""
