"""Lightning callbacks: checkpoints, images, progress, signals."""
