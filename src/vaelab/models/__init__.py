"""The model as mathematics: VAE, priors, posteriors, likelihoods, distributions and networks, as plain modules of torch."""
