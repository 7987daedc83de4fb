r"""Invertible maps f of latent vectors with triangular Jacobians, so that densities can be transformed.

A map is a module with ``forward(u)`` and ``inverse(z)``, from vectors (..., D) to vectors (..., D). Both also return
:math:`\log |\det \partial f / \partial u|`, shape (...), of the map from u to z. Further arguments, such as an image's
features, follow as ``context``.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.networks.layers import activation, dense
from vaelab.runtime.validation import PositiveInt, checked

_OPEN = 2.0  # added to a gate's logit, so that a flow is initially near the identity: its gates are about 0.88
_RANGE = 3.0  # the largest change of that logit


class Composition(nn.Module):
    r"""Composition of maps, :math:`f = f_T \circ \dots \circ f_1`, all with the same context.

    Args:
        maps: :math:`f_1, \dots, f_T`.
    """

    def __init__(self, maps: Iterable[nn.Module]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, u: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors u (..., D) to z (..., D), and the log-determinant (...)."""
        total = u.new_zeros(u.shape[:-1])
        for part in self.maps:
            u, log_det = part(u, *context)
            total = total + log_det
        return u, total

    def inverse(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors z (..., D) to u (..., D), and the log-determinant (...) of the map from u to z."""
        total = z.new_zeros(z.shape[:-1])
        for part in reversed(self.maps):
            assert isinstance(part, AffineCoupling | GatedAutoregression)
            z, log_det = part.inverse(z, *context)
            total = total + log_det
        return z, total


class AffineCoupling(nn.Module):
    r"""Scales and shifts one half of a vector by functions of the other half; initially the identity.

    .. math:: z_a = u_a, \qquad z_b = u_b \odot e^{s(u_a)} + t(u_a), \qquad
        \log |\det \partial z / \partial u| = \sum_i s_i(u_a)

    Dinh, Sohl-Dickstein and Bengio (2017), arXiv 1605.08803. A hyperbolic tangent keeps s between -1 and 1, so that a
    coupling scales by at most e.

    Args:
        size: D, at least two.
        hidden_sizes: widths of the network of s and t.
        activation_name: its activation, a class of :mod:`torch.nn`.
        swap: whether :math:`u_a`, the half that does not change, is the second half.
    """

    @checked
    def __init__(self, size: int, hidden_sizes: Sequence[PositiveInt], activation_name: str, swap: bool) -> None:
        super().__init__()
        self.swap = swap
        kept = size // 2 if swap else size - size // 2
        sizes = [kept, *hidden_sizes]
        outputs = nn.Linear(sizes[-1], 2 * (size - kept))
        nn.init.zeros_(outputs.weight)
        nn.init.zeros_(outputs.bias)
        self.network = nn.Sequential(*dense(sizes, activation_name), outputs)

    def _halves(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        first, second = vector.tensor_split(2, -1)
        return (second, first) if self.swap else (first, second)

    def _whole(self, kept: Tensor, other: Tensor) -> Tensor:
        return torch.cat([other, kept] if self.swap else [kept, other], -1)

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.network(kept).float().chunk(2, -1)
        return scale.tanh(), shift

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors u (..., D) to z (..., D), and the log-determinant (...)."""
        kept, other = self._halves(u)
        log_scale, shift = self._scale_and_shift(kept)
        return self._whole(kept, other * log_scale.exp() + shift), log_scale.sum(-1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors z (..., D) to u (..., D), and the log-determinant (...) of the map from u to z."""
        kept, other = self._halves(z)
        log_scale, shift = self._scale_and_shift(kept)
        return self._whole(kept, (other - shift) * (-log_scale).exp()), log_scale.sum(-1)


class MaskedLinear(nn.Linear):
    """A linear layer with masked weights, so that output i depends only on the first ``may_see[i]`` dimensions.

    Args:
        sees: the number of leading dimensions that each input depends on, (in_features,).
        may_see: the number of leading dimensions that each output may depend on, (out_features,).
    """

    mask: Tensor

    def __init__(self, sees: Tensor, may_see: Tensor) -> None:
        super().__init__(len(sees), len(may_see))
        self.register_buffer("mask", (sees <= may_see[:, None]).float(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    r"""A network whose i-th outputs depend only on the context and on the dimensions before the i-th.

    .. math:: (s_i, m_i) = g_i(u_1, \dots, u_{i-1}, h)

    Germain et al. (2015), arXiv 1502.03509. The context is an input of the first layer. The hidden units form D groups
    of about equal size, which depend on the first 0, 1, ..., D - 1 dimensions.

    Args:
        size: D.
        context_size: the number of features h.
        hidden_sizes: the widths of the layers.
        activation_name: a class of :mod:`torch.nn`.
        backwards: whether the order of the dimensions is from the last to the first.
    """

    position: Tensor

    @checked
    def __init__(
        self,
        size: int,
        context_size: int,
        hidden_sizes: Sequence[PositiveInt],
        activation_name: str,
        backwards: bool = False,
    ) -> None:
        super().__init__()
        position = torch.arange(size)
        position = position.flip(0) if backwards else position
        self.register_buffer("position", position, persistent=False)
        hidden = [torch.arange(width) * size // width for width in hidden_sizes]
        units = [position + 1, *hidden, position.repeat(2)]
        self.layers = nn.ModuleList(MaskedLinear(sees, may_see) for sees, may_see in pairwise(units))
        self.context = nn.Linear(context_size, len(units[1]), bias=False)
        self.activation = activation(activation_name)

    def forward(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (..., D) and their contexts (..., context_size), which broadcast, to s and m, each (..., D)."""
        first, *others = self.layers
        hidden = first(u) + self.context(context)
        for layer in others:
            hidden = layer(self.activation(hidden))
        s, m = hidden.float().chunk(2, -1)
        return s, m


class GatedAutoregression(nn.Module):
    r"""One step of an inverse autoregressive flow, in the form that is numerically stable.

    .. math:: z_i = \sigma_i u_i + (1 - \sigma_i)\, m_i, \qquad \sigma_i = \mathrm{sigmoid}(2 + 3 \tanh(s_i / 3)),
        \qquad \log |\det \partial z / \partial u| = \sum_i \log \sigma_i

    with s and m of a :class:`MADE`. Kingma et al. (2016), arXiv 1606.04934, algorithm 1. All of z is computed at once
    from u; the inverse is found dimension by dimension and takes D passes through the network. The hyperbolic tangent
    is not in the paper. It keeps gates between 0.27 and 0.99, because the inverse divides by all of them: closed gates
    would make it overflow at latents far from the training data.

    Args:
        made: s and m of u and the context.
    """

    def __init__(self, made: MADE) -> None:
        super().__init__()
        self.made = made

    def _gate_and_shift(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        s, m = self.made(u, context)
        return F.logsigmoid(_OPEN + _RANGE * (s / _RANGE).tanh()), m

    def forward(self, u: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors u (..., D) to z (..., D), and the log-determinant (...)."""
        log_gate, m = self._gate_and_shift(u, context)
        return m + log_gate.exp() * (u - m), log_gate.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors z (..., D) to u (..., D), and the log-determinant (...) of the map from u to z."""
        u, log_gate = torch.zeros_like(z), torch.zeros_like(z)
        for i in range(z.shape[-1]):
            log_gate, m = self._gate_and_shift(u, context)  # in the last pass, correct for all dimensions
            # Pass i makes dimension i correct. Later ones stay zero, so that their errors do not grow in each pass.
            u = torch.where(self.made.position == i, m + (-log_gate).exp() * (z - m), u)
        return u, log_gate.sum(-1)
