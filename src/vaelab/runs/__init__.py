"""What a run leaves in its folder, and the trained model that is read back from it."""
