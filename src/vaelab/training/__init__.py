"""One training, from the first step to the last checkpoint."""
