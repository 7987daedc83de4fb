"""Writes reports again, from the files of a folder: ``python -m vaelab.commands.report <folder> ...``."""

import argparse
import sys
from pathlib import Path

from vaelab.runs.run_folder import RunFolder
from vaelab.runtime.console import short_path
from vaelab.visualization.report import sweep_page, write


def main() -> None:
    """Writes ``report.html`` into each given folder, and for a sweep into the folders of its jobs."""
    parser = argparse.ArgumentParser("python -m vaelab.commands.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of a run, an evaluation or a sweep", metavar="folder")
    for folder in parser.parse_args().folders:
        if not RunFolder(folder).is_run and not (folder.is_dir() and sweep_page.is_several(folder)):
            sys.exit(
                f"error: {folder} holds no run, no evaluation and no sweep: type a folder such as logs/train/latest"
            )
        for each in [*sweep_page.parts(folder), folder]:
            if RunFolder(each).has_checkpoints and not RunFolder(each).latents_file.is_file():
                _write_latents(each)
            print(short_path(write(each)))


def _write_latents(folder: Path) -> None:
    """Encodes the images of a run that has no ``latents.npz``; skipped if the images are not on this machine."""
    from vaelab.runs import checkpoint
    from vaelab.runs.trained_model import TrainedModel
    from vaelab.runtime.console import best_effort
    from vaelab.runtime.random import eval_mode
    from vaelab.visualization.report import latent_space

    file = RunFolder(folder).latents_file
    with best_effort(file.name):
        path = checkpoint.find(folder)
        saved = checkpoint.rebuild(path)
        datamodule = checkpoint.rebuild_data(saved.config, path)
        datamodule.setup()
        with eval_mode(saved.vae):
            latent_space.write(TrainedModel.of(saved, datamodule), file)


if __name__ == "__main__":
    main()
