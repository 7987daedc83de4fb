"""What the page of a trained model holds, how it is served, and what is refused."""

import base64
import io
import json
import re
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import composed
from vaelab.commands.explore import explore
from vaelab.commands.train import train
from vaelab.runs import checkpoint
from vaelab.runtime.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_data: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    train(composed("train", f"run_dir={folder}", *tiny_data, "callbacks=none", "latent_dim=5"))
    return folder


def page_of(run: Path, folder: Path, *overrides: str) -> tuple[Path, dict[str, Any]]:
    """The page of a run, and what it holds."""
    file = explore(composed("explore", f"run={run}", f"run_dir={folder}", "open=false", *overrides))
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(), re.DOTALL)
    assert found is not None
    return file, json.loads(found[1])


def floats(packed: str, columns: int) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(packed), "<f4").copy()).view(-1, columns)


def test_a_page_holds_codes_images_and_what_they_say(run: Path, tmp_path: Path) -> None:
    _, page = page_of(run, tmp_path, "images=40", "draws=30")
    vae, _, config = checkpoint.rebuild(checkpoint.find(run))
    datamodule = checkpoint.rebuild_data(config, run)
    datamodule.prepare_data()
    datamodule.setup()
    points, images = page["points"], datamodule.splits["test"].images
    assert points["count"] == 40
    assert len(images) == 64
    x = images[points["numbers"]]
    with torch.no_grad():
        codes = vae.encode(x.float() / 255).centre
    torch.testing.assert_close(floats(points["codes"], 5), codes)
    assert points["labels"] == datamodule.splits["test"].labels[points["numbers"]].tolist()

    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(points["sprite"]))))
    for number in (0, 7, 39):
        row, column = divmod(number, points["columns"])
        assert np.array_equal(sheet[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28], x[number, 0].numpy())

    assert page["order"] == codes.var(0).argsort(descending=True).tolist()
    axes = torch.tensor(page["plane"]["axes"])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2))
    nine = codes[torch.tensor(points["labels"]) == 9].mean(0)
    torch.testing.assert_close(torch.tensor(page["classMeans"][9]), nine)
    assert [attribute["name"] for attribute in page["attributes"]][:2] == ["angle", "thickness"]
    assert len(page["kl"]) == 5
    assert floats(page["prior"]["draws"], 5).shape == (30, 5)
    assert page["prior"]["centre"] == [0.0] * 5


def test_a_page_does_without_the_data_set(run: Path, tmp_path: Path) -> None:
    file, page = page_of(run, tmp_path, "images=0", "data_dir=/nowhere")
    assert page["points"]["count"] == 0
    assert file.stat().st_size < 3_000_000


def test_a_data_set_that_is_not_found_is_one_line_that_says_what_to_type(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "run"
    (broken / "checkpoints").mkdir(parents=True)
    saved = torch.load(checkpoint.find(run), weights_only=True)
    saved["vaelab"]["config"]["data"]["source"] = {
        "_target_": "vaelab.data.image_folder.ImageFolder",
        "folder": "/nowhere",
        "image_shape": [1, 28, 28],
        "cache_dir": str(tmp_path),
    }
    torch.save(saved, broken / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="/nowhere.*; or images=0 to explore without test images") as refused:
        page_of(broken, tmp_path)
    assert "\n" not in str(refused.value)
    page_of(broken, tmp_path, "images=0")


def test_nothing_in_a_page_is_asked_of_the_network_or_ends_its_element(run: Path, tmp_path: Path) -> None:
    file, _ = page_of(run, tmp_path, "images=10")
    text = file.read_text()
    assert not re.search(r"\b(?:src|href)=[\"']?(?!data:)\w", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "default-src 'none'" in text
    assert text.count("</script>") == 3
    assert not re.search(r"\{\{[\w.]+\}\}", text)


def test_a_flow_has_a_centre_and_a_mixture_has_none(tmp_path: Path, tiny_data: list[str]) -> None:
    for prior, has_centre in (("realnvp", True), ("gaussian_mixture", False)):
        folder = tmp_path / prior
        chosen = [
            f"prior={prior}",
            "objective=elbo_sampled",
            "callbacks=none",
            "trainer.max_epochs=1",
            "conditional=true",
        ]
        settings = {setting.partition("=")[0]: setting for setting in [*tiny_data, *chosen]}
        train(composed("train", f"run_dir={folder}", *settings.values()))
        _, page = page_of(folder, folder, "images=20")
        assert (page["prior"]["centre"] is not None) == has_centre
        assert page["kl"] is None
        assert page["conditional"]
        assert page["classMeans"] is None
        assert page["plane"]["names"] == ["z[0]", "z[1]"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("images=-1", "images=-1: it must be an integer of at least 0"),
        ("images=1", "images=1: a map needs two images; type images=2000, or images=0"),
        ("images=many", "images=many: it must be an integer"),
        ("draws=0", "draws=0: it must be a positive integer; type e.g. draws=20"),
        ("port=70000", "port=70000: it must be an integer from 0 to 65535; type e.g. port=8000"),
        ("open=perhaps", "open=perhaps: it must be true or false"),
        ("seed=-1", "seed=-1: it must be an integer from 0 to 4294967295"),
        ("run=/nowhere/run", "/nowhere/run does not exist: type a run folder"),
    ],
)
def test_impossible_values_are_refused(typed: str, said: str, tmp_path: Path) -> None:
    settings = {"run": "run=latest", typed.partition("=")[0]: typed}
    with pytest.raises(UserError, match=re.escape(said)):
        explore(composed("explore", f"run_dir={tmp_path}", "open=false", *settings.values()))
    assert not list(tmp_path.iterdir())


def test_a_page_is_served_to_this_machine_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers: list[ThreadingHTTPServer] = []
    serve_forever = ThreadingHTTPServer.serve_forever

    def noted(server: ThreadingHTTPServer) -> None:
        servers.append(server)
        threading.Thread(target=client, args=(server,)).start()
        serve_forever(server, 0.02)

    answers: dict[str, Any] = {}

    def client(server: ThreadingHTTPServer) -> None:
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            for name, path, host in (
                ("page", "/", None),
                ("file", "/etc/passwd", None),
                ("rebound", "/", "evil.example"),
            ):
                request = urllib.request.Request(address + path, headers={"Host": host} if host else {})
                try:
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        answers[name] = answer.read()
                except urllib.error.HTTPError as error:
                    answers[name] = error.code
                    error.close()
        finally:
            server.shutdown()

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", noted)
    file = explore(
        composed("explore", f"run={run}", f"run_dir={tmp_path}", "open=false", "serve=true", "port=0", "images=4")
    )
    assert answers == {"page": file.read_bytes(), "file": 404, "rebound": 404}
    assert servers[0].server_address[0] == "127.0.0.1"
    assert f"http://localhost:{servers[0].server_port}/ until Ctrl-C" in capsys.readouterr().out


@pytest.mark.parametrize(("platform", "display", "is_opened"), [("linux", "", False), ("linux", ":0", True)])
def test_a_page_is_opened_where_there_is_a_screen(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, display: str, is_opened: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("WAYLAND_DISPLAY", "")
    monkeypatch.setattr("webbrowser.get", lambda: None)
    monkeypatch.setattr("webbrowser.open", opened.append)
    file, _ = page_of(run, tmp_path, "images=4", "open=true")
    assert opened == ([file.as_uri()] if is_opened else [])


def test_a_port_that_is_taken_is_one_line(run: Path, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as taken:
        settings = ("serve=true", f"port={taken.server_port}", "images=0")
        with pytest.raises(UserError, match="is not available .*: type port=0 for any free port"):
            page_of(run, tmp_path, *settings)
