"""A search with Optuna, ``-m hydra/sweeper=search``: each job is chosen by the results of earlier jobs.

The plugin hydra-optuna-sweeper 1.3.0 needs Optuna 2, does not work with a study on disk, and cannot prune jobs. This
sweeper works with the present Optuna. Its study is a file in the folder of the sweep, from which the same command
resumes. :class:`vaelab.training.callbacks.optuna_pruning.Pruning` stops jobs that the pruner rejects.

Hydra imports this module at every start, so it does not import Optuna or torch.
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
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vaelab.commands.launchers import Interrupted
from vaelab.runs.comparability import shared_settings
from vaelab.runs.sweep_folder import STUDY
from vaelab.runtime.errors import UserError, first_line
from vaelab.runtime.overrides import literal, plain
from vaelab.runtime.workarounds.hydra import result_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_SHARED = "shared_settings"  # an attribute of the study
_LIKELIHOOD = "module.vae.likelihood."


class OptunaSearch(Sweeper):
    """Runs ``n_trials`` jobs in batches. Optuna chooses each batch by the results of the batches before.

    The search space is typed as a sweep: ``choice(...)`` or ``a,b`` for categories, ``range(a,b)`` for integers below
    b, ``interval(a,b)`` for numbers, ``int(interval(a,b))`` for integers up to b. ``tag(log,...)`` around the last two
    makes them logarithmic.

    Args:
        params: setting to range; ranges on the command line win.
        direction: ``maximize`` or ``minimize`` the result of a job.
        n_trials: jobs in total, with those that the study has already.
        n_jobs: jobs at once, if the launcher can run several.
        storage: of the study, in the syntax of Optuna.
        sampler, pruner: of Optuna.
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
        shared = self._check_comparable(fixed, space)
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
        _check_study(study, shared, folder)
        if study.get_trials(deepcopy=False):
            self.sampler.reseed_rng()  # with the same seed it would repeat the first trials
        returned: list[JobReturn] = []
        while batch := self._next_batch(study, space):
            jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in batch]
            self.validate_batch_is_legal(jobs)
            for trial, result in zip(batch, self.launcher.launch(jobs, initial_job_idx=batch[0].number), strict=True):
                _record(study, trial, result)
                returned.append(result)
        for result in returned:
            _ = result.return_value  # raises the error of a failed job
        return returned

    def _parse(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, "BaseDistribution"]]:
        """The overrides that all jobs share, and the search space: setting to distribution."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = [*(f"{key}={value}" for key, value in plain(self.params).items()), *arguments]
        overrides = {override.get_key_element(): override for override in parser.parse_overrides(typed)}
        fixed = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
        space = {key: _distribution(override) for key, override in overrides.items() if override.is_sweep_override()}
        if not space:
            raise UserError("there is nothing to search: type e.g. 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
        return fixed, space

    def _check_comparable(self, fixed: list[str], space: dict[str, "BaseDistribution"]) -> dict[str, Any]:
        """Refuses to search a setting whose values have ELBOs that cannot be compared.

        Returns:
            The settings that all trials of the study must share.
        """
        values = {key: _values(distribution) for key, distribution in space.items()}
        first = {key: texts[0] for key, texts in values.items()}
        expected = self._shared(self._composed(fixed, first))

        def differs(changed: dict[str, Any]) -> bool:
            cfg = self._composed(fixed, {**first, **changed})
            is_likelihood = any(key.startswith(_LIKELIHOOD) for key in changed)
            return self._shared(cfg) != expected or (is_likelihood and not _is_normalized(cfg))

        # Some values of all settings at once, because it takes a tenth of a second to compose a configuration.
        for number in range(1, max(map(len, values.values()))):
            some = {key: texts[number] for key, texts in values.items() if number < len(texts)}
            for key in some if differs(some) else ():
                if differs({key: some[key]}):
                    raise UserError(
                        f"{key} cannot be searched: the metrics of its values are not comparable; leave it out"
                    )
        return expected

    def _composed(self, fixed: list[str], values: dict[str, Any]) -> DictConfig:
        """The configuration of a trial with these values."""
        assert self.config is not None
        assert self.hydra_context is not None
        overrides = [*fixed, *(f"{key}={value}" for key, value in values.items())]
        return self.hydra_context.config_loader.load_sweep_config(self.config, overrides)

    def _shared(self, cfg: DictConfig) -> dict[str, Any]:
        """The settings that a trial must share with those with which it is compared."""
        config = {
            "choices": plain(cfg.hydra.runtime.choices),
            "conditional": cfg.get("conditional"),
            "data": OmegaConf.to_container(cfg.data, resolve=True),
            "trainer": plain(cfg.trainer),
        }
        return shared_settings(config, is_normalized=True)

    def _next_batch(self, study: "Study", space: dict[str, "BaseDistribution"]) -> list["FrozenTrial"]:
        """The next trials, with consecutive numbers. Trials that were started and not finished come first."""
        trials = study.get_trials(deepcopy=False)
        started = [trial for trial in trials if not trial.state.is_finished()]
        if not started:
            for _ in range(min(self.n_jobs, self.n_trials - len(trials))):
                study.ask(space)
            started = study.get_trials(deepcopy=False)[len(trials) :]
        return [trial for i, trial in enumerate(started[: self.n_jobs]) if trial.number == started[0].number + i]


def _check_study(study: "Study", shared: dict[str, Any], folder: Path) -> None:
    """Refuses to resume a search with settings that make its next trials incomparable with those it has."""
    now = {key: literal(value) for key, value in shared.items()}
    then = study.user_attrs.get(_SHARED)
    if then is None:
        study.set_user_attr(_SHARED, now)
    elif other := [key for key in {**then, **now} if then.get(key) != now.get(key)]:
        typed = " ".join(f"{key.removeprefix('choices.')}={then[key]}" for key in other if key in then)
        was = f"with {typed}" if typed else f"without {' '.join(key for key in other if key != 'data.eval_batch_size')}"
        raise UserError(
            f"{folder} holds a search {was}, and its metrics are not comparable with these: type the same, or another "
            "hydra.sweep.dir"
        )


def _values(distribution: "BaseDistribution") -> list[Any]:
    """All categories, or the two ends of a range."""
    ends = [getattr(distribution, name, None) for name in ("low", "high")]
    return list(getattr(distribution, "choices", ends))


def _is_normalized(cfg: DictConfig) -> bool:
    """Whether the loss is a likelihood of its images, so that the settings of the loss may differ."""
    return bool(instantiate(cfg.module.vae.likelihood).is_normalized(cfg.data.binarize != "none"))


def _distribution(override: Override) -> "BaseDistribution":
    """The distribution of Optuna for a range of Hydra.

    Raises:
        UserError: the range is empty or invalid.
    """
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


def _record(study: "Study", trial: "FrozenTrial", result: JobReturn) -> None:
    """Records the result of a job in the study.

    Raises:
        Interrupted: a signal has ended the job; the study keeps it as started, so that a later command resumes it.
    """
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
