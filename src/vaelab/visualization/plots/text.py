"""Names of classes, files and runs in charts: not parsed as mathematics, and in fonts that have their characters."""

import logging
from collections.abc import Sequence
from functools import cache

from vaelab.runtime.console import displayable

log = logging.getLogger(__name__)

# The families of all charts, in the order in which Matplotlib looks for a character. `_add_fonts` adds to them.
families = ["sans-serif"]
_absent: set[int] = set()  # characters that no installed font has
_REGULAR = ("regular", "book", "normal", "roman")
_told = False


def drawable(name: str) -> str:
    """A name as Matplotlib draws it: escapes stand for the characters that no installed font has."""
    shown = displayable(name)
    if lacking := _lacking(shown):
        _tell(f"no installed font has all characters of {shown}: plots show escapes such as {_escape(lacking[0])}")
    return "".join(_escape(char) if char in lacking else char for char in shown).replace("$", r"\$")


def drawable_classes(classes: Sequence[str]) -> list[str]:
    """Names of classes as Matplotlib draws them: the class number stands for a name that no installed font can show."""
    numbered = {i: displayable(name) for i, name in enumerate(classes) if _lacking(displayable(name))}
    if numbered:
        some = ", ".join(f"{i} is {name}" for i, name in list(numbered.items())[:5])
        _tell(
            f"no installed font has all characters of {len(numbered)} names of classes: plots show their numbers "
            f"({some}{', ...' if len(numbered) > 5 else ''})"
        )
    return [str(i) if i in numbered else drawable(name) for i, name in enumerate(classes)]


def _tell(line: str) -> None:
    """Logs one line, once in a process."""
    global _told
    if not _told:
        log.warning("%s; install a font of this script, such as Noto Sans CJK for Chinese and Japanese", line)
    _told = True


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _lacking(text: str) -> list[str]:
    """The characters of a text that no installed font has; adds the fonts of the others to the families."""
    codes = {ord(char) for char in text if not char.isascii()}
    if codes - _absent - _known():
        _add_fonts(codes - _absent - _known())
    return [char for char in dict.fromkeys(text) if ord(char) in _absent]


def _known() -> set[int]:
    """The characters of the families."""
    from matplotlib.font_manager import FontProperties, findfont

    return set().union(*(_characters(findfont(FontProperties(family=[family]))) for family in families))


@cache
def _characters(path: str) -> frozenset[int]:
    """The characters of a font; none of a font that Matplotlib cannot draw, such as one of bitmaps."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (RuntimeError, OSError):
        return frozenset()


def _add_fonts(codes: set[int]) -> None:
    """Adds the fewest fonts that have these characters, and notes the characters that no font has."""
    from matplotlib.font_manager import findSystemFonts, fontManager, get_font

    # A font without bold letters is no reason for a warning.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    # Matplotlib's own list is from its first start: a font that was installed since is missing there.
    paths = [path for path in sorted(findSystemFonts()) if codes & _characters(path)]
    plain = {path: get_font(path).style_name.lower() in _REGULAR for path in paths}
    while paths:
        best = max(paths, key=lambda path: (len(codes & _characters(path)), plain[path]))
        if not codes & _characters(best):
            break
        fontManager.addfont(best)
        families.append(get_font(best).family_name)
        codes = codes - _characters(best)
    _absent.update(codes)
