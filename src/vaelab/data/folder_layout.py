"""Which subfolders of a folder of images are its splits, and which are classes."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vaelab.runtime.console import displayable
from vaelab.runtime.errors import UserError
from vaelab.runtime.overrides import typed


class Splits(NamedTuple):
    """The subfolders of the two splits."""

    train: str
    test: str


# The names by which data sets call their splits, as a pattern for each role, in the order of the roles.
_ROLES = {
    role: re.compile(rf"({names})([ _-]?(set|data|split|images|files))?", re.IGNORECASE)
    for role, names in {
        "train": "train|training",
        "validation": "val|valid|validation|dev|eval|evaluation",
        "test": "test|testing|held[ _-]?out",
    }.items()
}


def _role(name: str) -> str | None:
    return next((role for role, pattern in _ROLES.items() if pattern.fullmatch(name)), None)


def splits_of(folder: Path, subfolders: Sequence[str], chosen: Sequence[str] | Literal["auto"] | None) -> Splits | None:
    """The splits of a folder; ``None`` if its subfolders are classes.

    Args:
        folder: the folder of images.
        subfolders: all of them, at any depth, as relative paths with forward slashes.
        chosen: see :class:`vaelab.data.image_folder.ImageFolder`.

    Raises:
        UserError: a chosen subfolder does not exist; or names of subfolders look like splits, but do not tell which
            one is to be trained on and which one is to be tested on.
    """
    if chosen != "auto":
        return _chosen(folder, subfolders, chosen)
    siblings = defaultdict(list)
    for subfolder in sorted(subfolders):
        parent, _, name = subfolder.rpartition("/")
        if _role(name) is not None:
            siblings[parent].append(name)
    # Two names of one role, such as val and eval, can be classes; one name alone can be a class.
    named = {parent: _by_role(names) for parent, names in siblings.items() if len(set(map(_role, names))) > 1}
    if not named:
        return None
    if "" in named:
        first, last = named[""][0], named[""][-1]
        known = Splits("train", "test") if {"train", "test"} <= set(named[""]) else Splits(first, last)
        roles = [_role(name) for name in named[""]]
        if known == ("train", "test") or (roles.count("train") == 1 and roles.count("test") == 1):
            return known
        raise UserError(
            f"{folder} holds {_listed(named[''])}, which can be splits or classes: type "
            f"{typed('data.source.splits', [first, last])} to train on {displayable(first)} and test on "
            f"{displayable(last)}, or data.source.splits=[] if its subfolders are classes"
        )
    parent, names = next(iter(named.items()))
    where = folder / parent
    if len(named) == 1:
        plain = _role(names[0]) == "train" and _role(names[-1]) == "test"
        remedy = typed("data.source.folder", where) + (
            "" if plain else f" {typed('data.source.splits', [names[0], names[-1]])}"
        )
    else:
        remedy = "data.source.folder=<path of a folder that holds train/<class>/ and test/<class>/>"
    raise UserError(
        f"{folder} holds {_listed(names)} within {displayable(parent)}, which can be splits: type {remedy}, or "
        "data.source.splits=[] to train on both"
    )


def _by_role(names: Sequence[str]) -> list[str]:
    """These names, those of training images first and those of test images last."""
    roles = list(_ROLES)
    return sorted(names, key=lambda name: roles.index(str(_role(name))))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"{displayable(name)}/" for name in names)


def _chosen(folder: Path, subfolders: Sequence[str], chosen: Sequence[str] | None) -> Splits | None:
    if chosen is None:
        return Splits("train", "test") if {"train", "test"} <= set(subfolders) else None
    if not chosen:
        return None
    for name in chosen:
        if name not in subfolders:
            raise UserError(
                f"{typed('data.source.splits', list(chosen))}: {folder} has no subfolder {displayable(name)}; type "
                "data.source.splits=auto, or the names of two of its subfolders"
            )
    train, test = chosen
    return Splits(train, test)


def doubts(
    folder: Path, subfolders: Sequence[str], splits: Splits | None, names: Sequence[str], trained: Sequence[str]
) -> list[str]:
    """What may be a mistake in the classes of a folder, a line for each kind of mistake.

    Args:
        folder: the folder of images.
        subfolders: see :func:`splits_of`.
        splits: of the folder.
        names: relative paths of all images that are used.
        trained: those of the training images.
    """

    def inner(paths: Sequence[str]) -> list[list[str]]:
        """The parts of these paths within the folder, or within its splits."""
        parts = [path.split("/") for path in paths]
        return parts if splits is None else [part[1:] for part in parts if part[0] in splits]

    def classes(paths: Sequence[str]) -> set[str]:
        return {part[0] for part in inner(paths) if len(part) > 1}

    known, lines = classes(names), []
    if not known:
        return []
    if empty := {part[0] for part in inner(subfolders) if part} - known:
        lines.append(f"no images of {_several(empty)}")
    if untrained := known - classes(trained):
        lines.append(f"no training images of {_several(untrained)}")
    if beside := sum(len(part) == 1 for part in inner(names)):
        lines.append(f"{beside:,} images lie beside the classes, and make a class of their own")
    within = {part[1] for part in inner(names) if len(part) > 2}
    if splits is None and len(known) == 1 and len(within) > 1 and not beside:
        (only,) = known
        lines.append(
            f"all images are of the class {displayable(only)}; to have its {len(within)} subfolders as classes, type "
            f"{typed('data.source.folder', folder / only)}"
        )
    return lines


def _several(classes: set[str]) -> str:
    names = sorted(map(displayable, classes))
    return f"the {'class' if len(names) == 1 else 'classes'} {', '.join(names[:10])}{', ...' if names[10:] else ''}"
