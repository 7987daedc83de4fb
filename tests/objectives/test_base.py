"""What holds for every objective: the bound it reports, what learns by it, what it refuses."""

import math
from typing import Any

import pytest
import torch

from tests.conftest import tiny_vae
from tests.objectives.parts import OBJECTIVES, WARMED_UP, LearnedPrior, UnknownPosterior, built, linear_vae
from vaelab import objectives
from vaelab.models.likelihoods import Bernoulli
from vaelab.objectives import ELBO, Warmup


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("divergence", ["analytic", "sampled"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_reported_bound_is_the_elbo_whatever_is_optimised(
    name: str, samples: int, divergence: Any, training: bool
) -> None:
    vae, x = tiny_vae(Bernoulli()), torch.rand(5, 1, 4, 4).round()
    warmup = {"warmup": Warmup(100)} if name in WARMED_UP else {}
    objective = built(name, samples=samples, divergence=divergence, **warmup).train(training)
    objective.step.fill_(30)
    torch.manual_seed(1)
    terms = objective(vae, x)
    torch.manual_seed(1)
    bound = ELBO(samples, divergence)(vae, x)
    for term in ("elbo", "reconstruction", "kl"):
        assert terms[term].shape == (5,)
        torch.testing.assert_close(terms[term], bound[term])
    if samples > 1 or name in WARMED_UP:
        assert abs(terms["loss"] - bound["loss"]) > 1e-4


@pytest.mark.parametrize("name", OBJECTIVES)
def test_everything_learns(name: str) -> None:
    for likelihood, samples in ((Bernoulli(), 1), (Bernoulli(), 3)):
        vae, objective = tiny_vae(likelihood), built(name, samples=samples)
        objective(vae, torch.rand(4, 1, 4, 4))["loss"].backward()
        for parameter_name, parameter in vae.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_prior_learns_of_which_only_densities_are_known(name: str) -> None:
    vae, x = linear_vae(LearnedPrior), torch.randn(4, 1, 3, 2)
    torch.nn.init.constant_(vae.prior.get_parameter("mean"), 3.0)  # further off than what is free
    if name == "beta_tc":
        with pytest.raises(NotImplementedError, match="prior=standard_normal, or objective=beta"):
            built(name, divergence="sampled")(vae, x)
        return
    if name == "free_bits":
        with pytest.raises(NotImplementedError, match=r"module\.objective\.per=total"):
            built(name, divergence="sampled")(vae, x)
        return
    built(name, divergence="sampled")(vae, x)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in vae.prior.parameters())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_posterior_of_which_only_densities_are_known(name: str) -> None:
    vae, x = linear_vae(posterior=UnknownPosterior), torch.randn(4, 1, 3, 2)
    refusals = {"beta_tc": "posterior=diagonal_gaussian", "free_bits": "per=total", "dreg": "objective=iwae"}
    objective = built(name, divergence="sampled")
    if name in refusals:
        with pytest.raises(NotImplementedError, match=refusals[name]) as caught:
            objective(vae, x)
        assert "KL" not in str(caught.value)  # which would be taken for a missing closed form
        return
    objective(vae, x)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in vae.parameters())


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_any_batch_and_mixed_precision(name: str, count: int) -> None:
    vae, objective = tiny_vae(Bernoulli()), built(name, samples=2)
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(vae, torch.rand(count, 1, 4, 4))
    for term, value in terms.items():
        assert value.dtype == torch.float32, term
        assert value.isfinite().all(), term
        assert value.shape in ((), (count,)), term
    assert terms["loss"].shape == ()
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())


@pytest.mark.parametrize("name", WARMED_UP)
def test_validation_is_by_the_weights_at_the_end_of_the_warm_up(name: str) -> None:
    """So that a loss means the same in every epoch; and in training at the end, too."""
    vae, x = tiny_vae(Bernoulli()), torch.rand(5, 1, 4, 4)

    def loss(warmup: Warmup | None, step: int, training: bool) -> float:
        objective = built(name, warmup=warmup).train(training)
        objective.step.fill_(step)
        torch.manual_seed(1)
        return objective(vae, x)["loss"].item()

    final = loss(None, 0, True)
    for step in (0, 30, 100):
        assert loss(Warmup(100), step, False) == final
    assert loss(Warmup(100), 100, True) == final
    assert loss(Warmup(100), 30, True) != final


@pytest.mark.parametrize("name", ["beta", "free_bits", "beta_tc", "mmd"])
def test_a_warm_up_begins_with_the_reconstruction_alone(name: str) -> None:
    terms = built(name, warmup=Warmup(100))(tiny_vae(Bernoulli()), torch.rand(5, 1, 4, 4))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"].mean())


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (objectives.ELBO, {"samples": 0}, "samples=0: it must be a positive integer"),
        (objectives.ELBO, {"divergence": "exact"}, "divergence=exact: it must be analytic or sampled"),
        (objectives.BetaVAE, {"beta": -1}, "beta=-1: it must be a finite number of at least 0"),
        (objectives.BetaVAE, {"beta": math.nan}, "beta=nan: it must be a finite number of at least 0"),
        (objectives.BetaVAE, {"beta": math.inf}, "beta=inf: it must be a finite number of at least 0"),
        (objectives.BetaVAE, {"beta": "4"}, "beta='4': it must be a finite number of at least 0"),
        (objectives.BetaVAE, {"beta": True}, "beta=true: it must be a finite number of at least 0"),
        (objectives.FreeBits, {"free_nats": -0.1}, "free_nats=-0.1: it must be a finite number of at least 0"),
        (objectives.FreeBits, {"per": "group"}, "per=group: it must be dimension or total"),
        (objectives.Capacity, {"capacity": -1}, "capacity=-1: it must be a finite number of at least 0"),
        (objectives.Capacity, {"gamma": -1}, "gamma=-1: it must be a finite number of at least 0"),
        (objectives.BetaTCVAE, {"alpha": -1}, "alpha=-1: it must be a finite number of at least 0"),
        (objectives.BetaTCVAE, {"sampling": "all"}, "sampling=all: it must be stratified or weighted"),
        (objectives.MMD, {"mmd_weight": None}, "mmd_weight=null: it must be a finite number of at least 0"),
        (objectives.MMD, {"kl_weight": -1}, "kl_weight=-1: it must be a finite number of at least 0"),
        (objectives.MMD, {"kernel": "linear"}, "kernel=linear: it must be inverse_multiquadratic or gaussian"),
    ],
)
def test_impossible_settings_are_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)
