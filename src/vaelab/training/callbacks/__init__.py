"""Callbacks of a training: checkpoints, images, progress, signals."""
