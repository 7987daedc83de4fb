"""The best epoch is chosen among all that was validated, the weights at the end with it."""

from pathlib import Path

import pytest

from tests.trainings import retested, rows, trained
from vaelab.runs import checkpoint


@pytest.mark.parametrize(
    "ends",
    [
        ["trainer.max_epochs=3"],
        ["trainer.max_steps=11"],
        ["trainer.max_steps=8"],
        ["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"],
        ["trainer.max_epochs=3", "+trainer.val_check_interval=3"],
        ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=3", "callbacks=early_stopping"],
    ],
    ids=" ".join,
)
def test_the_end_is_validated_and_can_be_the_best(ends: list[str], tmp_path: Path, tiny_data: list[str]) -> None:
    figures = trained(tmp_path, *tiny_data, *ends)
    logged = {int(row["step"]): float(row["val/elbo"]) for row in rows(tmp_path) if row["val/elbo"]}
    assert max(logged) == figures["steps"] - 1  # and once
    assert figures["val/elbo"] == pytest.approx(max(logged.values()), rel=1e-6)
    assert figures["val/elbo"] == pytest.approx(logged[max(logged)], rel=1e-6)  # of so short a training
    assert figures["test/elbo"] == pytest.approx(retested(tmp_path)["test/elbo"], rel=1e-5)
    for name in ("best", "last"):
        kept = checkpoint.read(tmp_path / "checkpoints" / f"{name}.ckpt")
        assert kept["global_step"] == figures["steps"]
        assert kept["vaelab"]["metrics"]["val/elbo"] == figures["val/elbo"]
