"""What a search learns from its jobs while they run, and the end of those that will come to nothing."""

from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate


class Pruning(L.Callback):
    """Tells the Optuna study of a search the ELBO on validation images, and ends a training that its pruner gives up.

    Such a training ends as one that has had all its epochs: its best one is tested, and it is ranked with the others.
    Outside of a search it does nothing.
    """

    def __init__(self) -> None:
        self._trial: Any = None
        self._reported: set[int] = set()  # by an earlier attempt, too

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
            return
        import optuna

        from vaelab.runs.sweep_folder import STUDY

        config = HydraConfig.get()
        study = optuna.load_study(
            study_name=STUDY,
            storage=config.sweeper.storage,
            sampler=optuna.samplers.RandomSampler(),  # unused here; others would look at all that was tried
            pruner=instantiate(config.sweeper.pruner),
        )
        frozen = study.get_trials(deepcopy=False)[config.job.num]
        self._trial = optuna.trial.Trial(study, frozen._trial_id)
        self._reported = set(frozen.intermediate_values)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._trial is None or trainer.sanity_checking or epoch in self._reported:
            return
        self._trial.report(float(trainer.callback_metrics["val/elbo"]), epoch)
        if epoch != trainer.max_epochs and self._trial.should_prune():
            self._trial.set_user_attr("pruned", epoch)
            trainer.should_stop = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trial = None
