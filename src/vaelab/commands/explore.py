"""Writes a page to explore the latent space of a model in a browser: what ``explore.py`` runs."""

import contextlib
import os
import signal
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from omegaconf import DictConfig

from vaelab.commands.config_validation import check_exploration
from vaelab.runs import checkpoint
from vaelab.runtime import console, signals
from vaelab.runtime.errors import UserError
from vaelab.runtime.files import write_text
from vaelab.runtime.random import evaluation_seed
from vaelab.runtime.workarounds.warning_filters import filter_warnings
from vaelab.visualization.explorer.page import contents, render


def explore(cfg: DictConfig) -> Path:
    """Writes the page, and opens or serves it.

    Args:
        cfg: as ``configs/explore.yaml`` composes it.

    Returns:
        The path of the page.

    Raises:
        UserError: there is no such checkpoint, its data set is not found, its decoder cannot be translated, or a
            setting is invalid.
    """
    check_exploration(cfg)
    return explore_checked(cfg)


def explore_checked(cfg: DictConfig) -> Path:
    """Explores as :func:`explore` does, with settings that are checked already."""
    filter_warnings()
    path = checkpoint.find(cfg.run)
    with evaluation_seed(torch.device("cpu")):  # a model draws random weights before the saved ones are loaded
        page = contents(path, cfg.images, cfg.draws, cfg.seed, cfg.data_dir)
    file = Path(cfg.run_dir) / "explorer.html"
    write_text(render(page), file)
    console.print_line(f"{console.short_path(file)}: {file.stat().st_size / 1e6:.1f} MB, for any browser")
    if cfg.serve:
        _serve(file.read_bytes(), cfg.port, cfg.open)
    elif cfg.open and _has_browser():
        webbrowser.open(file.resolve().as_uri())
    return file


def _has_browser() -> bool:
    """Whether there is a graphical browser; browsers in a terminal do not run the page."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _serve(page: bytes, port: int, is_opened: bool) -> None:
    """Serves the page to this machine until Ctrl-C."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Other host names are refused, because somebody else may have pointed them to this machine.
            host = urlsplit(f"//{self.headers.get('Host')}").hostname
            if self.path != "/" or host not in ("localhost", "127.0.0.1"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UserError(f"port={port} is not available ({error.strerror}): type port=0 for any free port") from error
    with server:
        address = f"http://localhost:{server.server_port}/"
        console.print_line(f"{address} until Ctrl-C")
        if is_opened and _has_browser():
            webbrowser.open(address)
        signals.handle(signal.default_int_handler, [signal.SIGINT])
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
