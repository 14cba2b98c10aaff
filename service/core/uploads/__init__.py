"""Reads uploaded files and folders as checked pairs of images and masks."""
