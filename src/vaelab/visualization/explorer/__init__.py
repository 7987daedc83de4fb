"""The explorer: a page to move through the latent space of a trained model."""
