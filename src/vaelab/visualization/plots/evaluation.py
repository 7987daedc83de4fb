"""Charts of an evaluation: bounds on the log-likelihood, and the KL divergence of each latent dimension."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vaelab.visualization.plots.style import PALETTE, SPLIT_COLOURS, RGBImage, new_figure, rendered


def convergence(curves: Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]]) -> RGBImage:
    """Bounds on the log-likelihood over the number of importance samples, a line for each split.

    Args:
        curves: split to (numbers of samples, bounds, standard errors), in nats.
    """
    with new_figure(6.4, 4.6) as figure:
        axes = figure.subplots()
        for split, (ks, values, errors) in curves.items():
            axes.errorbar(
                ks, values, errors, color=SPLIT_COLOURS[split], marker="o", markersize=4, capsize=3, label=split
            )
        axes.set_xscale("log")
        axes.set_xlabel("importance samples k")
        axes.set_ylabel("bound on log p(x) (nats)")
        axes.set_title("Bound over the number of samples; bars: standard error over images")
        axes.legend()
        return rendered(figure)


def dimension_bars(kls: Tensor, active: Tensor) -> RGBImage:
    """The KL divergence of each latent dimension, in descending order.

    Args:
        kls: (D,), in nats.
        active: (D,), whether the dimension is an active unit.
    """
    order = kls.argsort(descending=True)
    count = len(kls)
    with new_figure(max(5.0, min(12.0, 0.28 * count + 1.5)), 4.2) as figure:
        axes = figure.subplots()
        for kind, colour, name in ((True, PALETTE[0], "active"), (False, PALETTE[3], "not active")):
            bars = [rank for rank, dimension in enumerate(order.tolist()) if bool(active[dimension]) is kind]
            if bars:
                axes.bar(bars, kls[order[bars]].tolist(), color=colour, label=name)
        if count <= 40:
            axes.set_xticks(range(count), [str(dimension + 1) for dimension in order.tolist()])
        axes.grid(False, axis="x")
        axes.set_xlabel("latent dimension")
        axes.set_ylabel("KL divergence (nats)")
        axes.set_title(f"{kls.sum():.2f} nats in {count} dimensions, {int(active.sum())} of them active")
        axes.legend()
        return rendered(figure)
