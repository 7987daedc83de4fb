"""Charts of latent space, errors and losses, and two models side by side."""

from collections.abc import Sequence

import torch

from vaelab.runs.foreign_files import LARGEST_CSV
from vaelab.runs.metrics import term_unit
from vaelab.runs.metrics_csv import read_rows
from vaelab.runs.ranked_table import number_of
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime.errors import NotApplicable, UserError
from vaelab.runtime.validation import PositiveInt, Seed
from vaelab.visualization import plots
from vaelab.visualization.gallery.gallery_image import GalleryImage
from vaelab.visualization.gallery.samples import samples
from vaelab.visualization.plots.charts import Curve


def latents(model: TrainedModel) -> GalleryImage:
    """Posterior means and log-variances of the test images in two dimensions, coloured by class."""
    codes, log_variances = model.codes_of_test
    labels = model.test.labels
    arrays = {"latents": codes, "labels": labels} | ({} if log_variances is None else {"log_variances": log_variances})
    return GalleryImage(plots.latent_scatter(codes, log_variances, labels, model.classes), arrays)


def errors(model: TrainedModel) -> GalleryImage:
    """A histogram of the test images' mean squared reconstruction errors."""
    parts = []
    for start in range(0, len(model.test.images), 500):  # the pixels of all images together may not fit into memory
        images = model.test.part(slice(start, start + 500))
        decoded = model.decode(model.codes_of_test[0][start : start + 500], images.labels)
        parts.append((decoded - model.pixels(images.images).float().cpu()).square().mean((1, 2, 3)))
    each = torch.cat(parts)
    return GalleryImage(plots.error_histogram(each), {"errors": each})


def losses(model: TrainedModel, terms: Sequence[str] = ("loss", "reconstruction", "kl")) -> GalleryImage:
    """Training and validation terms over the steps, from the run's ``metrics.csv``.

    Args:
        model: the model.
        terms: names of the logged metrics, without the split.
    """
    path = None if model.run is None else model.run.metrics_csv
    if path is None or not path.is_file():
        raise NotApplicable("there is no metrics.csv in a run folder around the checkpoint; logger=csv writes it")
    rows = read_rows(path, LARGEST_CSV)
    curves: dict[str, dict[str, Curve]] = {}
    for term in terms:
        for split in ("train", "val"):
            name = f"{split}/{term}"
            points = [(int(row["step"]) + 1, value) for row in rows if (value := number_of(row.get(name))) is not None]
            if points:
                steps, values = zip(*points, strict=True)
                curves.setdefault(term, {})[split] = (steps, values)
    if not curves:
        raise NotApplicable(f"metrics.csv holds none of {', '.join(terms)}")
    # A validation within an epoch gives too few steps per epoch, so the maximum counts.
    validated = [row for row in rows if row.get("val/loss") and row.get("epoch")]
    epochs = [(int(row["step"]) + 1) / (int(row["epoch"]) + 1) for row in validated if row["epoch"].isdecimal()]
    term_units = {term: term_unit(f"val/{term}", model.unit) for term in curves}
    units = {term: f"{unit}, per image" if unit else "per image" for term, unit in term_units.items()}
    arrays = {
        f"{split}/{term}": torch.tensor(curve, dtype=torch.float64).T
        for term, splits in curves.items()
        for split, curve in splits.items()
    }
    return GalleryImage(plots.loss_curves(curves, max(epochs, default=None), units), arrays)


def comparison(model: TrainedModel, beside: str | None, count: PositiveInt = 64, seed: Seed = 0) -> GalleryImage:
    """Samples of this model and of another one, and their latent codes of the same test images.

    Args:
        model: the model.
        beside: the run of the other model.
        count: number of samples of each model.
        seed: of the samples.

    Raises:
        UserError: the other model is for images of another shape.
        NotApplicable: no other model is given.
    """
    if beside is None:
        raise NotApplicable("what=comparison needs another model of the same images: type beside=<its run folder>")
    models = [model, TrainedModel.load(beside)]
    shapes = {each.vae.image_shape for each in models}
    if len(shapes) > 1:
        raise UserError(f"beside={beside}: the two models are for images of different shapes, {sorted(shapes)}")
    objectives = [str(each.choices.get("objective")) for each in models]
    titles = objectives if len(set(objectives)) == 2 else ["this model", str(beside)]
    decoded, codes = [], []
    for each in models:
        torch.manual_seed(seed)
        decoded.append(samples(each, count).arrays["pictures"])
        codes.append(each.codes(model.test))
    labels = model.test.labels
    arrays = {"pictures": torch.stack(decoded), "latents": codes[0], "latents_beside": codes[1], "labels": labels}
    return GalleryImage(plots.compare(titles, decoded, codes, labels, model.classes), arrays)
