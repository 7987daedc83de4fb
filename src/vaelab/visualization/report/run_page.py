"""The page of one training, or of one evaluation."""

import logging
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from omegaconf import OmegaConf

from vaelab.runs.metrics import NOT_NATS, NOT_NATS_NOTE, Metric, formatted, term_unit
from vaelab.runs.run_folder import TITLE_GROUPS
from vaelab.runtime.errors import NotApplicable
from vaelab.visualization.report import charts, curves
from vaelab.visualization.report.images import ReportFolder
from vaelab.visualization.report.page import (
    NAME,
    Block,
    Cell,
    Page,
    note,
    section,
    table,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

_SUMS = "Terms are summed over pixels and latent dimensions and averaged over images."
_TERMS = ("elbo", "reconstruction", "kl", "loss", "bits_per_dim")


def _or_nothing(part: Callable[[], T], nothing: T) -> T:
    """A part of the page's head, which is no section that could say what is wrong: that stands in the others."""
    try:
        return part()
    except Exception as error:
        log.warning("%s: a line of its head is left out: %s", NAME, type(error).__name__)
        return nothing


def page(path: Path) -> Page:
    """What is known of a run, an evaluation, or both in one folder."""
    folder = ReportFolder(path)
    of_training = bool(folder.config) or not folder.evaluation
    needs = of_training and "There are none: {}."
    return Page(
        folder.title,
        _or_nothing(lambda: _subtitle(folder), ""),
        _or_nothing(lambda: _tiles(folder), []),
        [
            section("summary", "Summary", lambda: _repeat(folder), lambda: _summary(folder)),
            section(
                "metrics",
                "Metrics",
                lambda: _metrics(folder) if of_training else [],
                lambda: _measured(folder),
                lambda: folder.image_sections.blocks("metrics"),
            ),
            section(
                "curves",
                "Curves",
                lambda: _curves(folder) if of_training or (path / "metrics.csv").is_file() else [],
                lambda: folder.image_sections.blocks("curves"),
            ),
            section(
                "reconstructions",
                "Reconstructions",
                lambda: folder.image_sections.blocks(
                    "reconstructions", needs.format("callbacks.pictures draws them") if needs else ""
                ),
            ),
            section(
                "samples",
                "Samples",
                lambda: folder.image_sections.blocks(
                    "samples", needs.format("callbacks.pictures draws them") if needs else ""
                ),
            ),
            charts.latent_section(folder),
            section(
                "errors",
                "Errors and scores",
                lambda: charts.errors(folder),
                lambda: charts.scores(path),
                lambda: folder.image_sections.blocks("errors"),
            ),
            section(
                "rest",
                "More pictures",
                lambda: folder.image_sections.blocks("charts"),
                lambda: folder.image_sections.blocks("rest"),
            ),
            section("config", "Configuration", lambda: _configuration(folder)),
        ],
    )


def _subtitle(folder: ReportFolder) -> str:
    """One line: what it is, how long it took, when."""
    metrics, about = folder.metrics, folder.about
    if folder.evaluation and not folder.config:
        line = f"an evaluation of a model with {folder.setting.get('latent_dim')} latent dimensions"
    else:
        line = f"a VAE with {folder.config.get('latent_dim', '?')} latent dimensions"
        if metrics:
            line += f", trained for {metrics.get('epochs', '?')} epochs in {duration(metrics.get('seconds'))}"
    if about.get("device"):
        line += f" on {about['device']}"
    if about.get("started"):
        line += f", {datetime.fromisoformat(str(about['started'])):%d %B %Y, %H:%M}"
    return line


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else "?"


def duration(seconds: Any) -> str:
    """So many seconds as people say it."""
    if not isinstance(seconds, int | float):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _unit_of(folder: ReportFolder) -> str:
    return str(folder.metrics.get("unit") or folder.evaluation.get("protocol", {}).get("unit") or "")


def _tiles(folder: ReportFolder) -> list[tuple[str, str, str]]:
    """The figures that matter most."""
    tiles = []
    measured = folder.evaluation.get("metrics", {})
    best = [name for name in measured if name.startswith("likelihood/test/log_likelihood")]
    if best:
        metric = _metric(measured[best[-1]])
        value, error = formatted(metric)
        tiles.append((f"bound on log p(x), {best[-1].rpartition(', ')[2]}", value, f"{error} {metric.unit}".strip()))
    for term in ("elbo", "reconstruction", "kl"):
        name = f"test/{term}"
        value = folder.metrics.get(name, measured.get(name, {}).get("value"))
        if isinstance(value, float):
            title = f"test {curves.title_of(term)}"
            tiles.append((title, f"{value:,.2f}", term_unit(name, _unit_of(folder))))
    for name, title in (("samples/frechet_distance", "Fréchet distance"), ("reconstructions/psnr", "PSNR")):
        if name in measured:
            metric = _metric(measured[name])
            tiles.append((title, formatted(metric)[0], metric.unit))
    if folder.metrics.get("parameters"):
        tiles.append(("parameters", _short(folder.metrics["parameters"]), ""))
    return tiles


def _short(number: int) -> str:
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _summary(folder: ReportFolder) -> list[Block]:
    """What was chosen, and what came of it apart from the terms of the bound."""
    metrics, setting, data = folder.metrics, folder.setting, folder.config.get("data", {})
    left_out = ("logger", "callbacks", "accelerator")
    facts = [(str(group), str(option)) for group, option in folder.choices.items() if option and group not in left_out]
    facts.sort(
        key=lambda fact: (TITLE_GROUPS.index(fact[0]) if fact[0] in TITLE_GROUPS else len(TITLE_GROUPS), fact[0])
    )
    facts.append(("latent_dim", str(setting.get("latent_dim", "?"))))
    if setting.get("conditional"):
        facts.append(("conditional", "true"))
    binarize = data.get("binarize", setting.get("binarize"))
    if binarize is not None:
        facts.append(("data.binarize", str(binarize)))
    if "optimizer" in folder.config and isinstance(folder.config["optimizer"], dict):
        facts.append(("optimizer.lr", str(folder.config["optimizer"].get("lr"))))
    facts += [("batch size", str(data["batch_size"]))] if "batch_size" in data else []
    facts += [("seed", str(setting["seed"]))] if "seed" in setting else []
    results = []
    images = folder.about.get("images", {})
    if images:
        results.append(("images", ", ".join(f"{_count(images[name])} {name}" for name in images)))
    if metrics:
        results += [
            ("epochs", _count(metrics.get("epochs"))),
            ("steps", _count(metrics.get("steps"))),
            ("parameters", _count(metrics.get("parameters"))),
            ("time", duration(metrics.get("seconds"))),
            ("speed", f"{_count(metrics.get('images_per_second'))} images/s"),
            ("tested", str(metrics.get("tested", "?"))),
        ]
    blocks = [Block("facts", {"title": "Choices", "facts": facts})]
    if results:
        blocks.append(Block("facts", {"title": "Training" if folder.config else "Data", "facts": results}))
    machine = _machine(folder.about)
    if machine:
        blocks.append(Block("facts", {"title": "Machine and versions", "facts": machine}))
    lines = [Block("columns", {"blocks": blocks})]
    unread = list(folder.damaged)
    if unread:
        lines.append(note(f"Damaged, and left out: {', '.join(unread)}."))
    if folder.config and not metrics and not unread:
        lines.append(note("There is no metrics.json: this training has not come to its end."))
    if not folder.config and not folder.evaluation:
        lines.append(
            note("There is neither config.yaml nor evaluation.json that can be read: this is all that is here.")
        )
    if data.get("validation") == "test":
        lines.append(note("Validated on the test images, on which no epoch was chosen: the last one is tested."))
    return lines


def _machine(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not about:
        return []
    machine = about.get("machine", {})
    facts = [("device", f"{about.get('device')}, {about.get('precision')}")]
    if machine.get("processor"):
        facts.append(("processor", str(machine["processor"])))
        facts.append(("threads", f"{machine.get('threads')} on {machine.get('cores')} cores"))
    facts.append(("system", str(machine.get("system"))))
    versions = about.get("versions", {})
    if versions:
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    facts += [("commit", str(about["commit"]))] if about.get("commit") else []
    return facts


def command_of(script: str, overrides: Sequence[Any], *options: str) -> str:
    """What is typed into a shell."""
    return " ".join(["python", f"src/{script}.py", *options, *(shlex.quote(str(word)) for word in overrides)])


def _repeat(folder: ReportFolder) -> list[Block]:
    """The command line, and where the model is."""
    blocks: list[Block] = []
    if "overrides" in folder.config:
        command = command_of("train", folder.config["overrides"] or [])
        blocks.append(Block("command", {"title": "To train it again", "command": command}))
        if folder.config.get("ckpt_path"):
            blocks.append(
                note(f"That command went on from {folder.config['ckpt_path']}, which it needs; the settings are below.")
            )
    protocol = folder.evaluation.get("protocol", {})
    if "overrides" in protocol:
        command = command_of("evaluate", protocol["overrides"] or [])
        blocks.append(Block("command", {"title": "To evaluate it again", "command": command}))
    if protocol.get("checkpoint"):
        checkpoint = Path(str(protocol["checkpoint"]))
        report = checkpoint.parent.parent / NAME
        way = Path(os.path.relpath(report.resolve(), folder.path.resolve())).as_posix()
        link = {"href": quote(way), "link": "the report of its training"}
        found = link if report.is_file() and not folder.config else {}
        blocks.append(Block("note", {"text": f"The model: {checkpoint}{';' if found else ''}", **found}))
    if not blocks:
        raise NotApplicable("How to repeat it is not known: there is no config.yaml that can be read.")
    return blocks


def _metrics(folder: ReportFolder) -> list[Block]:
    """The terms of the bound on test and validation images."""
    metrics = folder.metrics
    if not metrics:
        raise NotApplicable("There are no figures of the training: metrics.json holds none.")
    unit = _unit_of(folder)
    present = [name.partition("/")[2] for name in metrics if name.startswith("test/")]
    terms = [*(term for term in _TERMS if term in present), *(term for term in present if term not in _TERMS)]
    rows = []
    for term in terms:
        values = [metrics.get(f"{split}/{term}") for split in ("test", "val")]
        shown = [Cell(f"{value:,.3f}" if isinstance(value, float) else "-") for value in values]
        rows.append([Cell(curves.title_of(term)), *shown, Cell(term_unit(f"test/{term}", unit))])
    images = folder.about.get("images", {})
    of = f" Test figures are of {images['test']:,} images and of {metrics.get('tested')}." if "test" in images else ""
    lines = [table(["per image", "test", "validation", "unit"], rows, "metrics", numeric=("test", "validation"))]
    lines.append(note(f"{_SUMS}{of}"))
    if unit == NOT_NATS:
        lines.append(note(NOT_NATS_NOTE))
    return lines


def _metric(values: Mapping[str, Any]) -> Metric:
    return Metric(values["value"], values.get("unit", ""), values.get("standard_error"), values.get("note", ""))


def _measured(folder: ReportFolder) -> list[Block]:
    """What ``evaluate.py`` has measured, with standard errors and how each figure was come by."""
    if not folder.evaluation:
        return []
    groups: dict[str, list[list[Cell]]] = {}
    for name, values in folder.evaluation["metrics"].items():
        measure, _, rest = name.partition("/")
        if values.get("value") is None:
            shown = [Cell("not finite"), Cell("")]
        else:
            value, error = formatted(_metric(values))
            shown = [Cell(value), Cell(f"{error} {values.get('unit', '')}".strip())]
        row = [Cell(rest.replace("_", " ")), *shown, Cell(str(values.get("note", "")))]
        groups.setdefault(measure, []).append(row)
    columns = ["figure", "value", "± and unit", "how it was come by"]
    blocks = [
        table(columns, rows, "measured", numeric=("value",), title="terms of the bound" if name == "test" else name)
        for name, rows in groups.items()
    ]
    remarks = [str(remark) for remark in folder.evaluation.get("remarks", [])]
    if folder.evaluation.get("protocol", {}).get("unit") == NOT_NATS:
        remarks.append(NOT_NATS_NOTE)
    line = "±: the standard error of the mean over images, or whatever stands beside the figure."
    return [*blocks, note(line), *map(note, remarks)]


def _curves(folder: ReportFolder) -> list[Block]:
    blocks = curves.of_run(folder.path / "metrics.csv", folder.metrics)
    folder.image_sections.replace("curves")
    return blocks


def _configuration(folder: ReportFolder) -> list[Block]:
    blocks = []
    for name in ("config.yaml", "evaluation.json"):
        path = folder.path / name
        if path.is_file():
            text = path.read_text(errors="replace")
            if name == "evaluation.json" and folder.evaluation:
                text = OmegaConf.to_yaml(OmegaConf.create({"protocol": folder.evaluation.get("protocol", {})}))
                name = "protocol of evaluation.json"
            blocks.append(Block("file", {"name": name, "text": text}))
    if not blocks:
        raise NotApplicable("There is no config.yaml.")
    return blocks
