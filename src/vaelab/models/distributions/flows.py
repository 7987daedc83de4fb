r"""Invertible maps f of latent vectors, through which densities can be carried because their Jacobians are triangular.

A map is a module with ``forward(u)`` and ``inverse(z)``, from vectors (..., D) to vectors (..., D). Both return beside
them :math:`\log |\det \partial f / \partial u|`, shape (...), of the way from u to z. What a map is told besides, such
as an image's features, follows as ``context``.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.models.networks.layers import activation, dense
from vaelab.runtime.validation import PositiveInt, checked

_OPEN = 2.0  # added to a gate's logit, so that a flow begins near the identity: 0.88 of the vector passes
_RANGE = 3.0  # within which that logit moves


class Composition(nn.Module):
    r"""One map after another, :math:`f = f_T \circ \dots \circ f_1`, all of them told the same.

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
        """Vectors z (..., D) to u (..., D), and the log-determinant (...) of the way from u to z."""
        total = z.new_zeros(z.shape[:-1])
        for part in reversed(self.maps):
            assert isinstance(part, AffineCoupling | GatedAutoregression)
            z, log_det = part.inverse(z, *context)
            total = total + log_det
        return z, total


class AffineCoupling(nn.Module):
    r"""One half of a vector scaled and shifted by functions of the other, the identity at first.

    .. math:: z_a = u_a, \qquad z_b = u_b \odot e^{s(u_a)} + t(u_a), \qquad
        \log |\det \partial z / \partial u| = \sum_i s_i(u_a)

    Dinh, Sohl-Dickstein and Bengio (2017), arXiv 1605.08803. A hyperbolic tangent keeps s between -1 and 1, and with it
    a coupling from scaling by more than e.

    Args:
        size: D, at least two.
        hidden_sizes: widths of the network of s and t.
        activation_name: its activation, a class of :mod:`torch.nn`.
        swap: whether the second half is the one that is kept, :math:`u_a`.
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
        """Vectors z (..., D) to u (..., D), and the log-determinant (...) of the way from u to z."""
        kept, other = self._halves(z)
        log_scale, shift = self._scale_and_shift(kept)
        return self._whole(kept, (other - shift) * (-log_scale).exp()), log_scale.sum(-1)


class MaskedLinear(nn.Linear):
    """A dense layer without those of its weights by which an output would see more of a vector than it may.

    Args:
        sees: of each input, how many leading dimensions it is a function of, (in_features,).
        may_see: of each output, of how many it may be, (out_features,).
    """

    mask: Tensor

    def __init__(self, sees: Tensor, may_see: Tensor) -> None:
        super().__init__(len(sees), len(may_see))
        self.register_buffer("mask", (sees <= may_see[:, None]).float(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    r"""A network whose i-th outputs are functions of the context and of the dimensions before the i-th alone.

    .. math:: (s_i, m_i) = g_i(u_1, \dots, u_{i-1}, h)

    Germain et al. (2015), arXiv 1502.03509. The context enters at the first layer; the hidden units are divided evenly
    between those that see none of the dimensions, the first, the first two and so on.

    Args:
        size: D.
        context_size: the number of features h.
        hidden_sizes: the layers' widths.
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
    is not the paper's: it keeps gates between 0.27 and 0.99, for the inverse divides by one after the other, and closed
    ones would take it out of the range of numbers at latents that are far from what the flow was trained on.

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
        """Vectors z (..., D) to u (..., D), and the log-determinant (...) of the way from u to z."""
        u, log_gate = torch.zeros_like(z), torch.zeros_like(z)
        for i in range(z.shape[-1]):
            log_gate, m = self._gate_and_shift(u, context)  # in the last pass right for all dimensions
            # Only the i-th is right by now. The others wait at zero, lest the errors of each pass multiply in the next.
            u = torch.where(self.made.position == i, m + (-log_gate).exp() * (z - m), u)
        return u, log_gate.sum(-1)
