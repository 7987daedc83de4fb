"""What a search learns from its jobs while they run, and the end of those that will come to nothing."""

from typing import Any

import lightning as L

from hydra_plugins.vaelab_search import STUDY


class Pruning(L.Callback):
    """Tells an Optuna study the ELBO on validation images, and ends a training whose pruner gives it up.

    Such a training ends as one that has had all its epochs: its best one is tested, and it is ranked with the others.

    Args:
        storage: of the study, as Optuna takes it.
        trial: this job's number in the study.
        pruner: Optuna's.
    """

    def __init__(self, storage: str, trial: int, pruner: Any) -> None:
        self.storage = storage
        self.number = trial
        self.pruner = pruner
        self._trial: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        import optuna

        sampler = optuna.samplers.RandomSampler()  # unused here; others would look at all that was tried
        study = optuna.load_study(study_name=STUDY, storage=self.storage, sampler=sampler, pruner=self.pruner)
        frozen = study.get_trials(deepcopy=False)[self.number]
        self._trial = optuna.trial.Trial(study, frozen._trial_id)
        self._reported = set(frozen.intermediate_values)  # by an earlier attempt

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
