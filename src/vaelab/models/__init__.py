"""The model as mathematics: VAE, priors, posteriors, likelihoods, distributions and networks, as torch modules."""
