"""A page in a real browser, as whoever is given the file sees it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's browser."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on the PATH")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """``page(path, width=1280)`` opens a file; what a console complains of, or a page asks for elsewhere, is a failure.

    Further options are those of Playwright's ``new_context``, such as ``has_touch`` and ``color_scheme``.
    """
    contexts, complaints = [], []

    def open_page(path: Path, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(10_000)
        opened.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        address = path.resolve().as_uri()
        opened.on("request", lambda request: complaints.append(request.url) if _leaves(request, address) else None)
        opened.goto(address)
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _leaves(request: Any, address: str) -> bool:
    inside = request.url.startswith(("data:", "blob:", "about:")) or request.url.partition("#")[0] == address
    followed = request.is_navigation_request() and request.url.startswith("file:")  # a link, which someone clicked
    return not (inside or followed)
