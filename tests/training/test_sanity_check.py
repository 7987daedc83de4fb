"""Combinations of choices that only a batch shows to be impossible."""

from pathlib import Path

import pytest

from tests.trainings import trained
from vaelab.objectives import ELBO
from vaelab.runtime.errors import UserError


def test_a_missing_closed_form_is_known_by_who_misses_it(
    tmp_path: Path, tiny_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no closed form of the divergence between the posterior .* and the prior"):
        trained(tmp_path, *tiny_data, "prior=gaussian_mixture")

    def refuse(*_: object) -> None:
        raise NotImplementedError("KL is a word of this objective, too")

    monkeypatch.setattr(ELBO, "forward", refuse)
    with pytest.raises(UserError, match="KL is a word of this objective, too$"):
        trained(tmp_path, *tiny_data)
