"""Faster forms of single operations; each computes what its plain form computes."""
