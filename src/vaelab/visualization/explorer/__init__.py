"""The explorer: one page in which people move through the latent space of a trained model."""
