"""Reports the validation ELBO to Optuna, and stops trials that its pruner rejects."""

from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate


class Pruning(L.Callback):
    """Reports the ELBO on validation images to the Optuna study of a search, and stops a trial that is pruned.

    A pruned training ends like a complete one: its best epoch is tested, and it is ranked with the others. Outside of a
    search this callback does nothing.
    """

    def __init__(self) -> None:
        self._trial: Any = None
        self._reported: set[int] = set()  # epochs, also of an earlier attempt
        self._pruned_at: int | None = None  # an epoch
        self._is_over = False

    def state_dict(self) -> dict[str, bool]:
        return {"is_over": self._is_over}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self._is_over = state_dict["is_over"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
            return
        import optuna

        from vaelab.runs.sweep_folder import STUDY

        config = HydraConfig.get()
        study = optuna.load_study(
            study_name=STUDY,
            storage=config.sweeper.storage,
            sampler=optuna.samplers.RandomSampler(),  # unused here; other samplers would read all trials
            pruner=instantiate(config.sweeper.pruner),
        )
        frozen = study.get_trials(deepcopy=False)[config.job.num]
        self._trial = optuna.trial.Trial(study, frozen._trial_id)
        self._reported = set(frozen.intermediate_values)
        self._pruned_at = frozen.user_attrs.get("pruned")
        trainer.should_stop = trainer.should_stop or self._is_over  # only the test is left of an earlier attempt

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self._trial is None or trainer.sanity_checking:
            return
        if epoch not in self._reported:
            self._trial.report(float(trainer.callback_metrics["val/elbo"]), epoch)
            if epoch != trainer.max_epochs and self._trial.should_prune():
                self._trial.set_user_attr("pruned", epoch)
                self._pruned_at = epoch
        if epoch == self._pruned_at:
            trainer.should_stop = self._is_over = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trial = None
