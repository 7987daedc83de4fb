"""Values of the literature, to stand beside figures of the same data and protocol."""

_BURDA = "Burda et al. 2016, arXiv 1509.00519"
_EXEMPLAR = "Norouzi et al. 2020, arXiv 2004.04795"
_VAMP = "Tomczak and Welling 2018, arXiv 1705.07120"

# -log p(x) in nats of the 10,000 test images, the importance samples k, the model, the source. How many training images
# were kept to validate on differs.
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
    """Lines of published log-likelihoods of this data set under this protocol, if there are any."""
    values = _VALUES.get((data, binarization), [])
    lines = [f"{-value:.2f} nats, k={k}, 10,000 images: {what} ({source})" for value, k, what, source in values]
    if lines and binarization == "static":
        lines.append("those of another draw of the binary images, Larochelle's, which is a download")
    return [f"published: {line}" for line in lines]
