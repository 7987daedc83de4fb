"""Searches with Optuna: ``-m hydra/sweeper=search``, the jobs of a sweep chosen by how the earlier ones went.

The plugin that Hydra has for this, hydra-optuna-sweeper 1.3.0, asks for Optuna 2, does not work with a study on disk,
and knows nothing of how a job is doing. This one is the same idea with the Optuna of today: its study is a file in the
sweep's folder, with which the same command goes on, and :class:`vaelab.training.callbacks.optuna_pruning.Pruning` ends hopeless jobs.

The module lies here because Hydra looks for plugins nowhere else; it does so at every start, so imports are light.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vaelab.commands.launchers import Interrupted
from vaelab.runs.sweep_folder import STUDY
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.workarounds.hydra import result_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_INCOMPARABLE = ("data", "loss", "data.binarize", "data.validation")  # an ELBO says nothing about which is better


class OptunaSearch(Sweeper):
    """Runs ``n_trials`` jobs in batches, of which Optuna chooses each by what the ones before it returned.

    What is searched is typed as a sweep is: ``choice(...)`` or ``a,b`` are categories, ``range(a,b)`` integers below b,
    ``interval(a,b)`` numbers, ``int(interval(a,b))`` integers up to b; ``tag(log,...)`` of the last two makes them
    logarithmic.

    Args:
        params: such ranges by setting; what is typed on the command line comes before them.
        direction: ``maximize`` or ``minimize`` what ``main`` returns.
        n_trials: jobs in all, those included that the study has already.
        n_jobs: of them at once, where the launcher can do that.
        storage: of the study, as Optuna takes it.
        sampler, pruner: Optuna's.
    """

    def __init__(
        self,
        params: dict[str, str],
        direction: str,
        n_trials: int,
        n_jobs: int,
        storage: str,
        sampler: Any,
        pruner: Any,
    ) -> None:
        self.params = params
        self.direction = direction
        self.n_trials, self.n_jobs = n_trials, n_jobs
        self.storage = storage
        self.sampler, self.pruner = sampler, pruner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        assert self.config is not None
        fixed, space = self._parse(arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study = optuna.create_study(
            storage=self.storage,
            study_name=STUDY,
            sampler=self.sampler,
            pruner=self.pruner,
            direction=self.direction,  # type: ignore[arg-type]  # a literal there
            load_if_exists=True,
        )
        if study.get_trials(deepcopy=False):
            self.sampler.reseed_rng()  # with its own seed it would try again what it tried at first
        returned: list[JobReturn] = []
        while batch := self._next(study, space):
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in batch]
            self.validate_batch_is_legal(jobs)
            for trial, result in zip(batch, self.launcher.launch(jobs, initial_job_idx=batch[0].number), strict=True):
                _tell(study, trial, result)
                returned.append(result)
        for result in returned:
            _ = result.return_value  # raises what the job did
        return returned

    def _parse(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, "BaseDistribution"]]:
        """What is the same in all jobs, and what is searched."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = {override.get_key_element(): override for override in parser.parse_overrides(typed)}
        fixed = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
        space = {key: _distribution(override) for key, override in overrides.items() if override.is_sweep_override()}
        if not space:
            raise UserError("there is nothing to search: type e.g. 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
        for key in space:
            if key in _INCOMPARABLE:
                raise UserError(
                    f"{key} cannot be searched: figures of one are not comparable with another's; leave it out"
                )
        return fixed, space

    def _next(self, study: "Study", space: dict[str, "BaseDistribution"]) -> list["FrozenTrial"]:
        """The next jobs, numbered without a gap: first those that were begun and not finished."""
        trials = study.get_trials(deepcopy=False)
        begun = [trial for trial in trials if not trial.state.is_finished()]
        if not begun:
            for _ in range(min(self.n_jobs, self.n_trials - len(trials))):
                study.ask(space)
            begun = study.get_trials(deepcopy=False)[len(trials) :]
        return [trial for i, trial in enumerate(begun[: self.n_jobs]) if trial.number == begun[0].number + i]


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            if isinstance(value.start, int) and isinstance(value.end, int):
                return IntDistribution(value.start, value.end, log=log)
            return FloatDistribution(value.start, value.end, log=log)
        if isinstance(value, RangeSweep) and isinstance(value.step, int) and isinstance(value.start, int):
            within = list(value.range())
            return IntDistribution(int(within[0]), int(within[-1]), step=value.step, log=log)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        reason = "there is nothing to choose from" if isinstance(error, IndexError) else first_line(error)
        raise UserError(f"{override.input_line}: {reason}") from error


def _tell(study: "Study", trial: "FrozenTrial", result: JobReturn) -> None:
    """Tells the study how a job ended; of one that a signal ended nothing, for it goes on another time."""
    from optuna.trial import TrialState

    if result.status is not JobStatus.COMPLETED:
        if isinstance(error := result_of(result), Interrupted):
            raise error
        study.tell(trial.number, state=TrialState.FAIL)
        return
    value = result.return_value
    if not isinstance(value, float) or not math.isfinite(value):
        study.tell(trial.number, state=TrialState.FAIL)
    elif "pruned" in study.get_trials(deepcopy=False)[trial.number].user_attrs:
        study.tell(trial.number, state=TrialState.PRUNED)
    else:
        study.tell(trial.number, value)
