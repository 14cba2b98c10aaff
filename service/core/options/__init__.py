"""The options of training, sampling and the quality checks, each declared once with default, range and help."""
