"""The embedded base: procedural industrial images and the training of every network on them, from nothing."""
