"""Makes the embedded base: renders procedural industrial images, and trains every network on them from scratch."""
