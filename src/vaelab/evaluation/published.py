"""Published log-likelihoods, to print beside a measurement on the same data with the same protocol."""

_BURDA = "Burda et al. 2016, arXiv 1509.00519"
_EXEMPLAR = "Norouzi et al. 2020, arXiv 2004.04795"
_VAMP = "Tomczak and Welling 2018, arXiv 1705.07120"

# -log p(x) in nats on the 10,000 test images, importance samples k, model, source. The sources differ in how many
# training images they use for validation.
_VALUES = {
    ("MNIST", "dynamic"): [
        (86.76, 5000, "VAE, 2 x 200 tanh, 50 latents", _BURDA),
        (84.78, 5000, "IWAE, k=50, the same network", _BURDA),
        (84.45, 5000, "VAE, 40 latents", _EXEMPLAR),
        (82.43, 5000, "the same with a VampPrior", _EXEMPLAR),
        (79.67, 5000, "ConvHVAE with a VampPrior, two stochastic layers", _EXEMPLAR),
        (78.01, 1000, "NVAE, many stochastic layers", "Vahdat and Kautz 2020, arXiv 2007.03898"),
    ],
    ("MNIST", "static"): [
        (88.71, 5000, "VAE, 2 x 200 tanh, 50 latents", _BURDA),
        (85.57, 5000, "VAE with a VampPrior", _VAMP),
        (81.09, 5000, "ConvHVAE with a VampPrior, two stochastic layers", _VAMP),
        (78.59, 1000, "BIVA, many stochastic layers", "Maaloe et al. 2019, arXiv 1902.02102"),
    ],
    ("FashionMNIST", "dynamic"): [
        (228.70, 5000, "VAE, 40 latents", _EXEMPLAR),
        (227.35, 5000, "the same with a VampPrior", _EXEMPLAR),
        (224.67, 5000, "ConvHVAE with a VampPrior, two stochastic layers", _EXEMPLAR),
    ],
}


def published(data: str, binarization: str) -> list[str]:
    """Published log-likelihoods of this data set with this binarization, one line each; the list may be empty."""
    values = _VALUES.get((data, binarization), [])
    lines = [f"{-value:.2f} nats, k={k}, 10,000 images: {model} ({source})" for value, k, model, source in values]
    if lines and binarization == "static":
        lines.append("these use Larochelle's static binarization of the images, not the one used here")
    return [f"published: {line}" for line in lines]
