"""From uploaded files to checked images and masks."""
