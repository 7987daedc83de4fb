"""Evaluations from their configuration to their figures, in this process."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import composed
from vaelab.commands.evaluate import evaluate
from vaelab.commands.generate import generate
from vaelab.commands.train import train
from vaelab.evaluation import classifier, out_of_distribution
from vaelab.runtime.errors import UserError

NOTHING = ("callbacks=none", "logger=none")


def _train(run_dir: Path, *overrides: str) -> dict[str, Any]:
    return train(composed("train", f"run_dir={run_dir}", *overrides))


def _evaluate(run: Path, out: Path, *overrides: str) -> dict[str, Any]:
    return evaluate(composed("evaluate", f"run={run}", f"run_dir={out}", f"samples.cache_dir={out}", *overrides))


def _values(evaluated: dict[str, Any]) -> dict[str, float]:
    return {name: figure["value"] for name, figure in evaluated["metrics"].items()}


def test_the_figures_of_the_end_of_training_again(tmp_path: Path, tiny_data: list[str]) -> None:
    trained = _train(tmp_path, *tiny_data, *NOTHING, "data.binarize=threshold")
    state = torch.get_rng_state()
    out = tmp_path / "evaluation"
    evaluated = _evaluate(tmp_path, out, "what=[latents,likelihood]", "likelihood.samples=20")
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("test/loss", "test/elbo", "test/reconstruction", "test/kl"):
        assert _values(evaluated)[name] == trained[name]
    assert evaluated["protocol"]["unit"] == "nats"
    assert evaluated["metrics"]["likelihood/test/log_likelihood, k=20"]["standard_error"] > 0
    assert json.loads((out / "evaluation.json").read_text()) == evaluated
    files = {"evaluation.json", "likelihood.png", "dimensions.png", "report.html", "latents.npz", "about.json"}
    assert {path.name for path in out.iterdir()} == files
    # A measure comes to the same without the others.
    alone = _evaluate(tmp_path, tmp_path / "alone", "what=latents")
    assert all(evaluated["metrics"][name] == figure for name, figure in alone["metrics"].items())


def test_everything_that_applies_is_measured(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifier, "_STEPS", 10)
    _train(tmp_path, *tiny_data, *NOTHING, "loss=mse")
    evaluated = _evaluate(tmp_path, tmp_path / "out", "samples.count=200", "samples.shown=3")
    measures = {name.partition("/")[0] for name in evaluated["metrics"]}
    assert measures == {"test", "latents", "reconstructions", "samples", "scores"}
    assert any(remark.startswith("no likelihood: this loss is not a likelihood") for remark in evaluated["remarks"])
    assert "Not nats" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"what=likelihood: this loss is not a likelihood of these images"):
        _evaluate(tmp_path, tmp_path / "out", "what=likelihood")


@pytest.mark.parametrize(
    ("option", "answer"),
    [
        ("what=fid", "what=fid: no such measure"),
        ("what=[latents,fid]", "what=fid: no such measure"),
        ("likelihood.samples=0", "likelihood.samples=0: it must be a positive integer"),
        ("likelihood.splits=[test,all]", "choose some of"),
        ("latents.pairs=1.5", "latents.pairs=1.5"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_loaded(tmp_path: Path, option: str, answer: str) -> None:
    with pytest.raises(UserError) as refused:
        _evaluate(tmp_path / "none", tmp_path / "out", option)
    assert answer in str(refused.value)


def test_images_are_scored_against_another_data_set(tmp_path: Path, tiny_data: list[str]) -> None:
    options = ("data.limit=500", "trainer.max_epochs=8", "data.binarize=threshold")
    _train(tmp_path, *tiny_data, *NOTHING, *options)
    against = ("data@against=digits", f"against.source.cache_dir={tmp_path}", "+against.source.seed=1")
    out = tmp_path / "evaluation"
    figures = _values(_evaluate(tmp_path, out, "what=scores", "scores.limit=100", *against))
    assert 0.3 < figures["scores/auroc"] < 0.7  # other handwriting, the same kind
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert [int(row["image"]) for row in rows] == list(range(0, 500, 5))  # numbers of the test split
    assert sum(scores) / 100 == pytest.approx(figures["scores/mean"], rel=1e-5)
    assert figures["scores/mean"] > figures["test/elbo"] - 5  # a tighter bound, of some of the images
    assert (out / "extremes.png").stat().st_size > 1000
    assert "scores/auroc_reversed" not in figures


def test_two_runs_are_told_apart_both_ways_round(tmp_path: Path, tiny_data: list[str]) -> None:
    """A model against itself: the same images, so that neither set is likelier; and two models side by side."""
    _train(tmp_path, *tiny_data, *NOTHING)
    out = tmp_path / "out"
    beside = f"against_run={tmp_path}"
    figures = _values(_evaluate(tmp_path, out, beside, "what=scores", "scores.limit=50"))
    assert figures["scores/auroc"] == pytest.approx(0.5, abs=0.1)
    assert figures["scores/auroc_reversed"] == pytest.approx(0.5, abs=0.1)
    with pytest.raises(UserError, match="against"):
        _evaluate(tmp_path, out, beside, "data@against=digits")
    files = generate(composed("generate", f"run={tmp_path}", f"run_dir={out}", "what=comparison", f"beside={tmp_path}"))
    assert files[0].stat().st_size > 10_000
    with pytest.raises(UserError, match="beside"):
        generate(composed("generate", f"run={tmp_path}", f"run_dir={out}", "what=comparison"))


def test_a_folder_of_runs_ends_in_one_ranked_table(
    tmp_path: Path, tiny_data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for name, epochs in (("little", 1), ("much", 4)):
        _train(runs / name, *tiny_data, *NOTHING, "data.binarize=threshold", f"trainer.max_epochs={epochs}")
    (runs / "broken" / "checkpoints").mkdir(parents=True)
    (runs / "broken" / "checkpoints" / "last.ckpt").write_bytes(b"nothing of the kind")
    (runs / "empty" / "checkpoints").mkdir(parents=True)
    out = tmp_path / "out"
    evaluated = _evaluate(runs, out, "what=likelihood", "likelihood.samples=10")
    assert set(evaluated) == {"little", "much"}
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["much", "little"]
    best = evaluated["much"]["metrics"]["likelihood/test/log_likelihood, k=10"]
    assert float(rows[0]["test/log_likelihood, k=10"]) == best["value"]
    assert float(rows[0]["standard error"]) == best["standard_error"]
    table = (out / "results.md").read_text()
    assert "broken could not be evaluated" in table
    assert "| much |" in table
    again = json.loads((out / "much" / "evaluation.json").read_text())["protocol"]["overrides"]
    assert again == [f"run={runs / 'much' / 'checkpoints' / 'best.ckpt'}"]
    assert "results.csv" in capsys.readouterr().out


def test_what_is_measured_is_not_lost_by_an_interruption(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    for name in ("a", "b"):
        _train(runs / name, *tiny_data, *NOTHING)
    measure = out_of_distribution.measure
    done: list[bool] = []

    def interrupted_at_last(*arguments: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(True)
        return measure(*arguments)

    monkeypatch.setattr(out_of_distribution, "measure", interrupted_at_last)
    with pytest.raises(KeyboardInterrupt):
        _evaluate(runs, out, "what=[reconstructions,scores]", "scores.limit=20")
    with (out / "results.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["a"]
    whole, part = (json.loads((out / name / "evaluation.json").read_text()) for name in ("a", "b"))
    assert whole["remarks"] == []
    assert part["remarks"] == ["it ended before scores"]
    assert part["metrics"]["reconstructions/mse"]["value"] > 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["against=mnist"], "type data@against=mnist"),
        (["against_run=nowhere"], "nowhere"),
        (["against_run=nowhere", "what=latents"], "add scores"),
        (["data@against=cifar10"], r"shape \[3, 32, 32\]"),
        (["seed=a"], "seed=a: it must be an integer"),
    ],
)
def test_a_mistake_costs_no_measure(typed: list[str], message: str, tmp_path: Path, tiny_data: list[str]) -> None:
    _train(tmp_path, *tiny_data, *NOTHING)
    with pytest.raises(UserError, match=message):
        _evaluate(tmp_path, tmp_path / "out", *typed)
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_a_conditional_model_s_figures_say_so(tmp_path: Path, tiny_data: list[str]) -> None:
    _train(tmp_path, *tiny_data, *NOTHING, "conditional=true", "data.binarize=threshold")
    options = ("what=[likelihood,latents,scores]", "likelihood.samples=2", "scores.limit=20")
    evaluated = _evaluate(tmp_path, tmp_path / "out", *options)
    assert "latents/linear_probe_accuracy" not in evaluated["metrics"]
    assert "no accuracy of classes: a conditional model is given the class beside the code" in evaluated["remarks"]
    for name in ("likelihood/test/log_likelihood, k=2", "scores/mean"):
        assert evaluated["metrics"][name]["note"].endswith(", given their class")
    with pytest.raises(UserError, match="against: a conditional model needs the class"):
        _evaluate(
            tmp_path, tmp_path / "out", "what=scores", "data@against=digits", f"against.source.cache_dir={tmp_path}"
        )
