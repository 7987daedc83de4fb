"""Images of a folder as parts of a page."""

import base64
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from vaelab.runs.foreign_files import lies_in
from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.report.page import Block, address, note

_LARGEST_PNG = 700_000  # bytes; larger files become JPEG, with a loss that is not visible
_LARGEST_READ = 50_000_000  # bytes; larger files are linked without a look at them
_MOST_PIXELS = 30_000_000  # a small file can have more, which would take gigabytes
_LARGEST = 4_000_000  # bytes; larger files are linked, not embedded


class Known(NamedTuple):
    """An image that this project makes: the section of the page, the title, the caption."""

    section: str
    title: str
    caption: str = ""
    wide: bool = False


# File name to image, in the order of the page. Other images are at the end of the page.
KNOWN = {
    "reconstructions.png": Known(
        "reconstructions",
        "Test images above their reconstructions",
        "In pairs of rows, with the originals above.",
        True,
    ),
    "class_reconstructions.png": Known(
        "reconstructions", "Reconstructions by class", "Originals at the left of their reconstructions."
    ),
    "samples.png": Known("samples", "Samples", "Means of p(x|z), with z sampled from the prior."),
    "samples.gif": Known("samples", "The same latents, decoded during the training"),
    "nearest_neighbours.png": Known(
        "samples", "Samples and their nearest training images", "A memorised image would look the same.", True
    ),
    "dimensions.png": Known("latents", "KL divergence of each latent dimension", "", True),
    "latents.png": Known("latents", "Posterior means and log-variances", "", True),
    "manifold.png": Known("latents", "A plane of latent space, decoded", "At normal quantiles from 5 % to 95 %."),
    "manifold.gif": Known("latents", "The plane during the training"),
    "path.png": Known("latents", "Interpolation between two images", "", True),
    "arithmetic.png": Known("latents", "Latent arithmetic: a difference of mean codes is added"),
    "interpolations.png": Known("latents", "Interpolations between pairs of images"),
    "comparison.png": Known("latents", "Two models side by side", "", True),
    "likelihood.png": Known("metrics", "Bound over the number of importance samples"),
    "errors.png": Known("errors", "Reconstruction errors"),
    "extremes.png": Known("errors", "The most and the least likely test images", "", True),
    "losses.png": Known("curves", "Losses", "", True),
    "curves.png": Known("charts", "Metrics over the swept settings", "", True),
    "heat_map.png": Known("charts", "A metric over both settings"),
    "rate_distortion.png": Known("charts", "Rate and distortion", "Nearer to the lower left is better."),
}
# File name to the chart of the page that replaces it.
_REPLACED = {"latents.png": "scatter", "dimensions.png": "kls", "losses.png": "curves", "errors.png": "errors"}


class ImageSections:
    """The images of a folder and of its subfolder ``pictures``.

    Args:
        folder: of a run, an evaluation or a sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        places = (folder, RunFolder(folder).images)
        found = [path for place in places for path in sorted(place.glob("*")) if lies_in(path, folder)]
        self._paths = {path.name: path for path in found if path.suffix in (".png", ".gif")}
        self._left_out: set[str] = set()

    def replace(self, chart: str) -> None:
        """Leaves out the image that an interactive chart of the page replaces."""
        self._left_out |= {name for name, replacement in _REPLACED.items() if replacement == chart}

    def blocks(self, section: str, required: str = "") -> list[Block]:
        """The images of a section.

        Args:
            section: its id; ``rest`` for images that no other section has.
            required: the note if there are no images; empty for no note.
        """
        if section == "rest":
            names = sorted(self._paths.keys() - KNOWN.keys())
        else:
            names = [name for name, known in KNOWN.items() if known.section == section and name in self._paths]
        names = [name for name in names if name not in self._left_out]
        if not names and required:
            raise NotApplicable(required)
        blocks: list[Block] = []
        shown: list[dict[str, Any]] = []
        for name in names:
            known = KNOWN.get(name, Known("rest", name.rpartition(".")[0].replace("_", " ")))
            try:
                shown.append(embedded(self._paths[name], known.title, known.caption, known.wide))
            except NotApplicable as reason:
                path = self._paths[name].relative_to(self.folder).as_posix()
                text = f"{known.title}: {reason}"
                blocks.append(Block("note", {"text": text, "href": address(path), "link": path}))
            except Exception as error:
                blocks.append(note(f"{known.title}: left out, {name} could not be read ({type(error).__name__})."))
        return [Block("images", {"images": shown}), *blocks] if shown else blocks


class ReportFolder(RunFolder):
    """A run folder with its images as parts of a page."""

    @cached_property
    def image_sections(self) -> ImageSections:
        """The images, by section of the page."""
        return ImageSections(self.path)


def embedded(path: Path, title: str, caption: str = "", wide: bool = False) -> dict[str, Any]:
    """An image as a part of the page.

    Args:
        path: of the file.
        title: above the image.
        caption: below the image.
        wide: whether the image needs the whole width of the page.
    """
    length = path.stat().st_size
    if length > _LARGEST_READ:
        raise NotApplicable(f"too large for this page ({length / 1e6:.1f} MB), see")
    data = path.read_bytes()
    with Image.open(io.BytesIO(data), formats=("PNG", "GIF")) as image:
        size, kind = image.size, str(image.format).lower()
        if size[0] * size[1] > _MOST_PIXELS:
            raise NotApplicable(f"too large for this page ({size[0]} x {size[1]} pixels), see")
        image.load()  # raises if the file is damaged
        if kind == "png" and len(data) > _LARGEST_PNG:
            file = io.BytesIO()
            image.convert("RGB").save(file, "JPEG", quality=88)
            if file.tell() < len(data):
                data, kind = file.getvalue(), "jpeg"
    if len(data) > _LARGEST:
        raise NotApplicable(f"too large for this page ({len(data) / 1e6:.1f} MB), see")
    return {
        "src": data_uri(data, kind),
        "width": size[0],
        "height": size[1],
        "title": title,
        "caption": caption,
        "wide": wide or size[0] > 2.2 * size[1],
    }


def data_uri(data: bytes, kind: str) -> str:
    """The content of an image file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def sheet_uri(file: npt.NDArray[np.uint8]) -> str:
    """The data URI of a sprite sheet of :mod:`vaelab.visualization.report.latent_space`."""
    data = file.tobytes()
    return data_uri(data, "webp" if data[:4] == b"RIFF" else "png")


def side_by_side(images: Sequence[tuple[Path, str]]) -> list[Block]:
    """One image of each of several runs, with the name of the run as its title."""
    shown = []
    for path, title in images:
        if lies_in(path, path.parents[1]):
            shown.append(embedded(path, title))
    if not shown:
        raise NotApplicable("No job has written samples.png.")
    return [Block("images", {"images": shown})]
