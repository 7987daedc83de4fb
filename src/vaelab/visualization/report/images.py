"""Pictures that lie in a folder, as parts of a page."""

import base64
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image

from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.report.page import Block, note

_AS_IT_IS = 700_000  # bytes: pictures of more are made smaller, with a loss that cannot be seen
_LARGEST = 4_000_000  # bytes: what is still larger stays in its file


class Known(NamedTuple):
    """A picture that this project draws: where it stands on the page, and what it shows."""

    section: str
    title: str
    caption: str = ""
    wide: bool = False


# By the name of its file; their order here is that on the page. What is not here stands at the end of the page.
KNOWN = {
    "reconstructions.png": Known(
        "reconstructions", "Test images over their reconstructions", "In pairs of rows: originals above.", True
    ),
    "class_reconstructions.png": Known(
        "reconstructions", "Reconstructions by class", "Originals on the left of their reconstructions."
    ),
    "samples.png": Known("samples", "Samples", "Means of p(x|z), for z drawn from the prior."),
    "samples.gif": Known("samples", "The same latents, decoded throughout the training"),
    "nearest_neighbours.png": Known(
        "samples", "Samples and their nearest training images", "What is merely remembered would look the same.", True
    ),
    "dimensions.png": Known("latents", "KL divergence of each latent dimension", "", True),
    "latents.png": Known("latents", "Posterior means and log-variances", "", True),
    "manifold.png": Known("latents", "A plane of latent space, decoded", "Along quantiles of the prior, 5 % to 95 %."),
    "manifold.gif": Known("latents", "The plane throughout the training"),
    "path.png": Known("latents", "A straight way between two images", "", True),
    "arithmetic.png": Known("latents", "Adding a difference of mean codes"),
    "interpolations.png": Known("latents", "Straight ways between pairs of images"),
    "comparison.png": Known("latents", "Two models beside each other", "", True),
    "likelihood.png": Known("metrics", "The bound over its number of importance samples"),
    "errors.png": Known("errors", "Reconstruction errors"),
    "extremes.png": Known("errors", "The most and the least likely test images", "", True),
    "losses.png": Known("curves", "Losses", "", True),
    "curves.png": Known("charts", "What was swept", "", True),
    "heat_map.png": Known("charts", "Over both numbers"),
    "rate_distortion.png": Known("charts", "Rate and distortion", "Nearer to the lower left is better."),
}
_DRAWN_BY_THE_PAGE = {"latents.png": "scatter", "dimensions.png": "kls", "losses.png": "curves", "errors.png": "errors"}


class ImageSections:
    """The pictures of a folder and of ``pictures`` in it.

    Args:
        folder: of a run, an evaluation or a sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = [path for place in (folder, folder / "pictures") for path in sorted(place.glob("*")) if path.is_file()]
        self._paths = {path.name: path for path in found if path.suffix in (".png", ".gif")}
        self._drawn: set[str] = set()

    def replace(self, what: str) -> None:
        """Notes that the page itself draws something, better than a picture of it could."""
        self._drawn |= {name for name, drawn in _DRAWN_BY_THE_PAGE.items() if drawn == what}

    def blocks(self, section: str, required: str = "") -> list[Block]:
        """The pictures that belong into a section.

        Args:
            section: its id; ``rest`` for those that belong into no other.
            required: what is said where there are none; nothing by default.
        """
        if section == "rest":
            names = sorted(self._paths.keys() - KNOWN.keys())
        else:
            names = [name for name, known in KNOWN.items() if known.section == section and name in self._paths]
        names = [name for name in names if name not in self._drawn]
        if not names and required:
            raise NotApplicable(required)
        blocks: list[Block] = []
        shown: list[dict[str, Any]] = []
        for name in names:
            known = KNOWN.get(name, Known("rest", name.rpartition(".")[0].replace("_", " ")))
            try:
                shown.append(embedded(self._paths[name], known.title, known.caption, known.wide))
            except NotApplicable as reason:
                way = self._paths[name].relative_to(self.folder).as_posix()
                blocks.append(Block("note", {"text": f"{known.title}: {reason}", "href": quote(way), "link": way}))
            except Exception as error:
                blocks.append(note(f"{known.title}: left out, {name} could not be read ({type(error).__name__})."))
        return [Block("pictures", {"pictures": shown}), *blocks] if shown else blocks


class ReportFolder(RunFolder):
    """A run folder with its images as parts of a page."""

    @cached_property
    def image_sections(self) -> ImageSections:
        """The images, by the section of the page to which they belong."""
        return ImageSections(self.path)


def embedded(path: Path, title: str, caption: str = "", wide: bool = False) -> dict[str, Any]:
    """A picture as a part of the page.

    Args:
        path: of the file.
        title: above it.
        caption: below it.
        wide: whether it needs the whole width.
    """
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        size, kind = picture.size, str(picture.format).lower()
        picture.load()  # a damaged file is noticed here
        if kind == "png" and len(data) > _AS_IT_IS:
            file = io.BytesIO()
            picture.convert("RGB").save(file, "JPEG", quality=88)
            if file.tell() < len(data):
                data, kind = file.getvalue(), "jpeg"
    if len(data) > _LARGEST:
        raise NotApplicable(f"its {len(data) / 1e6:.1f} MB stay in a file of their own,")
    return {
        "src": data_uri(data, kind),
        "width": size[0],
        "height": size[1],
        "title": title,
        "caption": caption,
        "wide": wide or size[0] > 2.2 * size[1],
    }


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of a picture as its address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def sheet_uri(file: npt.NDArray[np.uint8]) -> str:
    """The address of a sheet of tiles, see :mod:`vaelab.visualization.report.latent_space`."""
    data = file.tobytes()
    return data_uri(data, "webp" if data[:4] == b"RIFF" else "png")


def side_by_side(pictures: Sequence[tuple[Path, str]]) -> list[Block]:
    """One picture each of several runs, with their names."""
    shown = []
    for path, title in pictures:
        if path.is_file():
            shown.append(embedded(path, title))
    if not shown:
        raise NotApplicable("No job has left samples.png.")
    return [Block("pictures", {"pictures": shown})]
