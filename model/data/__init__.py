"""Photographs before the network: pixels, crops, placement, copy-paste initialisation."""
