"""What the web site needs beyond Markdown: files from outside docs/, and equations that need no network.

Links such as ``../benchmarks/results/choices.md`` work on disk and on a code host. The site has these files too, one
level higher.
"""

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_OUTSIDE = [
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "benchmarks" / "results").iterdir()),
]


def on_files(files: Files, config: Any) -> Files:
    """Adds the files from outside docs/ that pages link to."""
    for path in _OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Draws equations, and points links that leave docs/ to where the site has their files."""
    markdown = re.sub(
        r"^```math\n(.*?)^```$", lambda found: equation(found[1]), markdown, flags=re.MULTILINE | re.DOTALL
    )
    if page.file.src_uri in _OUTSIDE:
        return re.sub(r"\]\((?:\.\./)*docs/", "](" + "../" * page.file.src_uri.count("/"), markdown)
    up = page.file.src_uri.count("/") + 1
    return markdown.replace("](" + "../" * up, "](" + "../" * (up - 1))


def equation(source: str) -> str:
    """LaTeX as MathML, which browsers draw without a script."""
    return convert(" ".join(source.split()), display="block")


class PlainDocstrings(Extension):
    """Makes Markdown of the few marks of reStructuredText that docstrings have."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _as_markdown(obj.docstring.value)


def _as_markdown(text: str) -> str:
    text = re.sub(r":math:`([^`]+)`", lambda found: f"<span>{convert(found[1])}</span>", text)
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    block = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +.*| *(?=\n\1 )))*)", re.MULTILINE)
    return block.sub(lambda found: found[1] + equation(found[2]), text)
