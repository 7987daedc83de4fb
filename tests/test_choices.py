"""Every choice trains as a user would train it, alone and with others drawn at random, or is refused in one line."""

import random
from pathlib import Path

import pytest

from tests.conftest import composed
from tests.test_configs import options
from vaelab.commands.train import train
from vaelab.runtime.errors import UserError

CHOICES = ("model", "loss", "prior", "posterior", "objective")
SINGLE = [f"{group}={option}" for group in CHOICES for option in options(group)]
WITH_CLOSED_FORM = {"prior": ("standard_normal",), "posterior": ("diagonal_gaussian", "full_gaussian")}


def _train(folder: Path, tiny_data: list[str], *overrides: str) -> dict[str, float]:
    settings = [*tiny_data, "trainer.max_epochs=1", "callbacks=none", "logger=none", "seed=1"]
    chosen = {override.partition("=")[0]: override for override in (*settings, *overrides)}
    return train(composed("train", f"run_dir={folder}", *chosen.values()))


@pytest.mark.parametrize("choice", SINGLE)
def test_every_choice_trains(choice: str, tmp_path: Path, tiny_data: list[str]) -> None:
    group, _, option = choice.partition("=")
    needed = [] if option in WITH_CLOSED_FORM.get(group, (option,)) else ["objective=elbo_sampled"]
    figures = _train(tmp_path, tiny_data, choice, *needed)
    assert figures["steps"] == 4
    assert figures["test/elbo"] == pytest.approx(-figures["test/reconstruction"] - figures["test/kl"], rel=1e-4)
    assert ("test/bits_per_dim" in figures) == (choice == "loss=discretized_logistic")


def _combinations(count: int) -> list[tuple[str, ...]]:
    generator = random.Random(0)
    drawn = []
    for _ in range(count):
        chosen = [f"{group}={generator.choice(options(group))}" for group in CHOICES]
        chosen.append(f"conditional={generator.choice(['true', 'false'])}")
        chosen.append(f"data.binarize={generator.choice(['none', 'dynamic'])}")
        drawn.append(tuple(chosen))
    return drawn


@pytest.mark.parametrize("combination", _combinations(30), ids=" ".join)
def test_combinations_train_or_say_what_to_type(
    combination: tuple[str, ...], tmp_path: Path, tiny_data: list[str]
) -> None:
    overrides = list(combination)
    for _ in range(3):  # as a user who does what the messages say
        refusal = ""
        try:
            assert _train(tmp_path, tiny_data, *overrides)["steps"] == 4
        except UserError as error:
            refusal = str(error)
        if not refusal:
            return
        assert "\n" not in refusal
        sampled = "module.objective.divergence=sampled"
        overrides.append(sampled if sampled in refusal else refusal.rpartition("type ")[2].split()[0].rstrip(",:;"))
    pytest.fail(f"no way out of {combination}: {refusal}")
