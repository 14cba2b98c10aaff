"""Masks of defects, and the U²-Net that finds them."""
