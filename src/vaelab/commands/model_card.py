"""The model card of a trained model, with its images."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from vaelab.runs.checkpoint import DATA_PATHS
from vaelab.runs.foreign_files import lies_in
from vaelab.runs.metrics import NOT_NATS_NOTE, term_unit
from vaelab.runs.run_folder import RunFolder
from vaelab.runs.trained_model import TrainedModel
from vaelab.runtime import console
from vaelab.runtime.files import write_text
from vaelab.visualization.gallery import samples
from vaelab.visualization.plots import save_png

# The images of the card, in this order.
_IMAGES = {
    "reconstructions": "Test images over their reconstructions",
    "samples": "Samples from the prior",
    "path": "On a straight line between two latent codes",
    "manifold": "A plane of latent space",
    "latents": "Latent codes of test images",
}
_TERMS = {
    "elbo": "evidence lower bound",
    "reconstruction": "-E log p(x\\|z)",
    "kl": "KL(q(z\\|x) \\|\\| p(z))",
    "bits_per_dim": "bits per pixel and channel",
}
_MACHINE_SETTINGS = ("run_dir", "hydra", "logger", "callbacks", "ckpt_path", "accelerator")
_PARTS = ("encoder", "decoder", "likelihood", "prior", "posterior")


def write_card(model: TrainedModel, path: Path, folder: Path, license_id: str | None) -> Path:
    """Writes ``README.md`` and ``pictures/`` for a model hub.

    Args:
        model: the model.
        path: of its checkpoint.
        folder: with its weights.
        license_id: identifier of the licence, or ``None``.
    """
    config = json.loads((folder / "config.json").read_text())["config"]
    metrics = _tested(model, path)
    if license_id is None:
        console.print_line("[dim]the model card names no licence: license=mit, or another[/dim]")
    sections = [
        _header(license_id),
        f"# {_title(model, config)}",
        _description(model, config),
        _images(model, metrics, folder),
        _metrics(model, metrics),
        _use(model),
        _training(model, config),
    ]
    if license_id is None:
        sections.append("## Licence\n\nNone yet: whoever publishes these weights must choose one.")
    card = folder / "README.md"
    write_text("\n\n".join(sections) + "\n", card)
    return card


def _header(license_id: str | None) -> str:
    """The YAML header that model hubs read."""
    lines = [
        "---",
        "library_name: vaelab",
        "pipeline_tag: unconditional-image-generation",
        *([] if license_id is None else [f"license: {json.dumps(license_id)}"]),
        "tags:",
        *(f"- {tag}" for tag in ("variational-autoencoder", "vae", "generative-model", "pytorch")),
        "---",
    ]
    return "\n".join(lines)


def _title(model: TrainedModel, config: dict[str, Any]) -> str:
    """The heading of the card."""
    kind = "A conditional variational autoencoder" if model.vae.classes else "A variational autoencoder"
    return f"{kind} of {_data(model, config)}"


def _data(model: TrainedModel, config: dict[str, Any]) -> str:
    """The name of the data set; the name of a folder of images is private."""
    name = config.get("choices", {}).get("data")
    return "a folder of images" if name in (None, "image_folder") else str(model.datamodule.source.name)


def _description(model: TrainedModel, config: dict[str, Any]) -> str:
    """The table of the model, its parts and the protocol of its training."""
    vae, data = model.vae, model.datamodule
    channels, height, width = vae.image_shape
    count = sum(parameter.numel() for parameter in vae.parameters())
    parts = {**{name: config["module"]["vae"][name] for name in _PARTS}, "objective": config["module"]["objective"]}
    validation = data.validation
    if validation == "test":
        protocol = "trained on all training images; validated on the test images, as some published protocols do"
    else:
        part = f"{validation:,}" if isinstance(validation, int) else f"{validation:.0%}"
        protocol = f"validated on {part} of the training images; nothing was chosen on the test images"
    rows = [
        ("images", f"{channels} x {height} x {width} (channels, height, width), floats from 0 to 1"),
        ("binarised", "yes, " + data.binarization if data.is_binary else "no, grey values"),
        ("latent dimensions", str(vae.latent_dim)),
        ("parameters", f"{count:,}"),
        *((name, f"`{part['_target_']}`") for name, part in parts.items()),
        ("classes", f"{vae.classes}; each image needs one" if vae.classes else "not used"),
        ("protocol", protocol + ("" if data.limit is None else f"; the first {data.limit:,} of each split")),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])


def _tested(model: TrainedModel, path: Path) -> dict[str, Any]:
    """The final metrics of the run if they were computed with this checkpoint, else none."""
    metrics = {} if model.run is None else model.run.metrics
    tested = "best" if "best" in str(metrics.get("tested")) else "last"
    return metrics if path.stem == tested else {}


def _images(model: TrainedModel, metrics: dict[str, Any], folder: Path) -> str:
    """Copies the images of the run if its metrics are those of this checkpoint; otherwise draws samples."""
    target = RunFolder(folder).images
    target.mkdir(exist_ok=True)
    saved = model.run.images if model.run is not None and metrics else None
    lines = []
    for name, caption in _IMAGES.items():
        if saved is not None and lies_in(saved / f"{name}.png", saved.parent):
            shutil.copyfile(saved / f"{name}.png", target / f"{name}.png")
        elif name == "samples":
            save_png(samples(model).image, target / "samples.png")
        else:
            continue
        lines.append(f"![{caption}](pictures/{name}.png)")
    return "\n\n".join(lines)


def _metrics(model: TrainedModel, metrics: dict[str, Any]) -> str:
    """The table of test metrics of the run, with their units."""
    rows = []
    for term, meaning in _TERMS.items():
        value = metrics.get(f"test/{term}")
        if isinstance(value, int | float):
            unit = term_unit(f"test/{term}", model.unit)
            rows.append(f"| {meaning} | {value:,.3f} | {unit} |")
    if not rows:
        return "## Metrics\n\nThis checkpoint has none."
    tested = f"of {metrics['tested']}, " if _is_plain(metrics.get("tested")) else ""
    note = "terms summed over pixels and latent dimensions, averaged over the test images"
    lines = ["## Metrics", "", f"On the test images, {tested}{note}.", "", "| | | |", "|---|---:|---|", *rows]
    if not model.is_normalized:
        lines += ["", NOT_NATS_NOTE]
    return "\n".join(lines)


def _use(model: TrainedModel) -> str:
    """The section that shows how to load the model in Python."""
    labels = ", labels" if model.vae.classes else ""
    classes = f"labels = [i % {model.vae.classes} for i in range(16)]  # of the samples\n" if model.vae.classes else ""
    shape = ", ".join(map(str, model.vae.image_shape))
    return f"""## Use

```python
import vaelab

model = vaelab.from_pretrained(".")  # this folder, or namespace/name on the Hugging Face Hub
images = model.sample(16)  # (16, {shape}), in [0, 1]
{classes}codes = model.encode(images{labels})
again = model.decode(codes{labels})
```

`vaelab` is the package that trained it. It loads only `model.safetensors`, the weights, and `config.json`, the
description of the model. It loads no code."""


def _is_plain(text: Any) -> bool:
    """Whether a value from somebody else's run folder is one short line without the characters of code and HTML."""
    return isinstance(text, str) and text.isprintable() and len(text) <= 200 and not set(text) & set("`<>")


def _names_a_folder(text: str) -> bool:
    """Whether a setting contains a path, which is private."""
    return "/" in text or "\\" in text or text.partition("=")[0].endswith(DATA_PATHS)


def _training(model: TrainedModel, config: dict[str, Any]) -> str:
    """The command of the training, without settings of that machine."""
    typed = [] if model.run is None else model.run.config.get("overrides") or []
    choices = {group: option for group, option in config.get("choices", {}).items() if option is not None}
    if not typed and choices:
        typed = [f"{group}={option}" for group, option in {**choices, "latent_dim": config["latent_dim"]}.items()]
    if not typed:
        return "## Training\n\nIt was trained from Python, with the settings in `config.json`."
    typed = [
        text
        for text in typed
        if _is_plain(text) and not text.lstrip("+~").startswith(_MACHINE_SETTINGS) and not _names_a_folder(text)
    ]
    return f"## Training\n\n```\n{shlex.join(['python', 'src/train.py', *typed])}\n```"
