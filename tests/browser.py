"""A real browser for the pages that this project writes: they may ask nothing of the network, nor go wrong in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest


def chromium() -> str:
    """The path of this machine's Chromium; skips the test where there is none, or nothing to drive it with."""
    pytest.importorskip("playwright.sync_api", reason='needs playwright: pip install -e ".[dev]"')
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("needs a browser: chromium, chromium-browser or google-chrome on the PATH")


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium, as playwright calls it, as long as the context lasts."""
    executable = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def page(started: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page at an address, loaded.

    It must say nothing wrong to the console, and ask for nothing but itself, from a file or from this machine.

    Args:
        started: of :func:`browser`.
        address: of the page.
        options: of playwright's ``new_context``: ``viewport``, ``color_scheme``, ``has_touch``, ...
    """
    context = started.new_context(**options)
    wrong: list[str] = []
    opened = context.new_page()
    opened.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type in ("error", "warning") else 0)
    opened.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    opened.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))

    def asked(request: Any) -> None:
        parts = urlsplit(request.url)
        is_local = parts.scheme == "file" or parts.hostname in ("localhost", "127.0.0.1")
        if parts.scheme not in ("data", "blob") and not (is_local and request.url.split("#")[0] == address):
            wrong.append(f"request: {request.url}")

    opened.on("request", asked)
    try:
        opened.goto(address)
        yield opened
        assert not wrong, "\n".join(wrong)
    finally:
        context.close()
