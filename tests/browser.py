"""A page in a real browser, as whoever is given the file sees it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.skips import browser as found
from tests.skips import require


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's browser."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    require("browser")
    with api.sync_playwright() as playwright:
        # What a browser does beside showing a page costs time; root cannot have the sandbox, and needs none for these.
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=found(), args=quiet, chromium_sandbox=False)
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
