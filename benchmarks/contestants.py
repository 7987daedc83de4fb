"""The programs that ``throughput.py`` compares: each trains a network for a few seconds in its own process.

    python benchmarks/contestants.py <way> <case> <precision>

prints one line of JSON: images per second after a warm-up, seconds from the start of the process to the end of the
first step, and peak memory of the process in MiB. The way ``operations`` prints the operations for an image, and the
speed of the machine. The way ``whole`` prints the time of a number of epochs of the MathWorks experiment.
"""

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from cases import ACCELERATORS, Clock, Laps, Watch, composed, images_and_batch_size

# isort: split
import lightning as L
import torch
import torch.nn.functional as F
from limits import bandwidth, bytes_per_step, matrix_peak, operations_per_image
from torch import Tensor, nn

from vaelab.runtime.hardware import flushed_denormals, keep_freed_memory


def product(case: str, accelerator: str) -> Clock:
    """``train.py`` with progress bar, W&B, CSV and checkpoints, without validation, which takes a separate time."""
    from vaelab.commands.train import train

    with tempfile.TemporaryDirectory() as folder:
        watch = [f"+callbacks.watch._target_={Watch.__module__}.Watch", f"run_dir={folder}"]
        short = ["trainer.max_epochs=10000", "trainer.check_val_every_n_epoch=10000", "trainer.limit_test_batches=1"]
        train(composed(case, accelerator, *watch, *short))
    return Watch.clock


def trainer_alone(case: str, accelerator: str) -> Clock:
    """The module and batches of vaelab in a bare Trainer, to measure the loop of Lightning."""
    from hydra.utils import instantiate

    cfg = composed(case, accelerator, "run_dir=.")
    module, data = (instantiate(part, _convert_="all") for part in (cfg.module, cfg.data))
    if "bfloat16" in accelerator:
        module.vae.to(memory_format=torch.channels_last)
    trainer = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        precision=cfg.trainer.precision,
        max_epochs=10_000,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch()],
    )
    trainer.fit(module, datamodule=data)
    return Watch.clock


def negative_elbo(outputs: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor, z: Tensor, cfg: Any) -> Tensor:
    """The loss of a case per image, written by hand."""
    if "SquaredError" in cfg.module.vae.likelihood._target_:
        reconstruction = 0.5 * (outputs.sigmoid() - x).square().sum()
    else:
        reconstruction = F.binary_cross_entropy_with_logits(outputs, x, reduction="sum")
    if cfg.module.objective.get("divergence") == "sampled":
        kl = 0.5 * (z.square() - (z - mean).square() * (-log_variance).exp() - log_variance).sum()
    else:
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
    return (reconstruction + kl) / len(x)


def bare(case: str, accelerator: str) -> Clock:
    """The same network, images and arithmetic in a loop by hand: the upper limit of the speed."""
    from hydra.utils import instantiate

    cfg = composed(case, accelerator, "run_dir=.")
    images, size = images_and_batch_size(cfg)
    vae = instantiate(cfg.module, _convert_="all").vae
    device, half = torch.device(accelerator.split(",")[0].replace("gpu", "cuda")), "bfloat16" in accelerator
    images = images.to(device)
    vae.to(device=device, memory_format=torch.channels_last if half else torch.preserve_format)
    encoder, head, decoder = vae.encoder, vae.posterior.head, vae.decoder

    def loss_of(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            mean, log_variance = head(encoder(x)).float().chunk(2, 1)
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            outputs = decoder(z).float()
        return negative_elbo(outputs, x, mean, log_variance, z, cfg)

    step = torch.compile(loss_of, mode="reduce-overhead", dynamic=False) if "compiled" in accelerator else loss_of
    optimizer = torch.optim.Adam(vae.parameters(), lr=cfg.optimizer.lr, fused=True)
    clock = Clock()
    while True:
        order = torch.randperm(len(images)).to(device)
        for part in order[: len(order) // size * size].split(size):
            loss = step(images.index_select(0, part).float().div_(255))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if clock.tick(size):
                return clock


def pytorch_example(case: str, accelerator: str) -> Clock:
    """The data loader, network and loop of github.com/pytorch/examples, vae/main.py."""
    from torchvision import datasets, transforms

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
            self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h1 = F.relu(self.fc1(x.view(-1, 784)))
            mu, logvar = self.fc21(h1), self.fc22(h1)
            std = torch.exp(0.5 * logvar)
            z = mu + torch.randn_like(std) * std
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar

    folder = composed(case, accelerator, "run_dir=.").data.source.data_dir
    data = datasets.MNIST(folder, train=True, transform=transforms.ToTensor())
    loader = torch.utils.data.DataLoader(data, batch_size=128, shuffle=True)
    model, clock, total = VAE(), Clock(), 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    while True:
        for x, _ in loader:
            optimizer.zero_grad()
            recon, mu, logvar = model(x)
            bce = F.binary_cross_entropy(recon, x.view(-1, 784), reduction="sum")
            loss = bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            loss.backward()
            total += loss.item()
            optimizer.step()
            if clock.tick(len(x)):
                return clock


class _Complete(Exception):  # noqa: N818  (it is no error)
    """The clock has measured enough."""


def pythae(case: str, accelerator: str) -> Clock:
    """The VAE and trainer of pythae with the encoder and decoder of the case."""
    from hydra.utils import instantiate
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    cfg = composed(case, accelerator, "run_dir=.")
    images, size = images_and_batch_size(cfg)
    vae = instantiate(cfg.module, _convert_="all").vae
    clock = Clock()

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = vae.encoder, vae.posterior.head

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.head(self.encoder(x)).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = vae.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.decoder(z).sigmoid())

    class Watch(TrainingCallback):
        def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
            if clock.tick(size):
                raise _Complete

    loss = "mse" if "SquaredError" in cfg.module.vae.likelihood._target_ else "bce"
    model_config = VAEConfig(input_dim=(1, 28, 28), latent_dim=cfg.latent_dim, reconstruction_loss=loss)
    model = VAE(model_config, encoder=Encoder(), decoder=Decoder())
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=size,
            num_epochs=10_000,
            learning_rate=cfg.optimizer.lr,
            optimizer_cls="Adam",
            no_cuda=accelerator.startswith("cpu"),
        )
        from pythae.data.datasets import BaseDataset

        data = BaseDataset(images.float() / 255, torch.zeros(len(images)))
        trainer = BaseTrainer(model, data, training_config=config, callbacks=[Watch()])
        with suppress(_Complete):
            trainer.train(log_output_dir=folder)
    return clock


def keras(case: str, accelerator: str) -> Clock:
    """The model, compiled step and data set of TensorFlow's tutorial "Convolutional Variational Autoencoder"."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    layers, latent_dim, size = tf.keras.layers, 2, 32
    images = images_and_batch_size(composed(case, accelerator, "run_dir=."))[0]
    x_train = images.numpy().reshape(-1, 28, 28, 1).astype("float32") / 255
    data = tf.data.Dataset.from_tensor_slices(x_train).shuffle(len(x_train)).batch(size)
    encoder = tf.keras.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Conv2D(64, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(2 * latent_dim),
        ]
    )
    decoder = tf.keras.Sequential(
        [
            tf.keras.Input((latent_dim,)),
            layers.Dense(7 * 7 * 32, activation="relu"),
            layers.Reshape((7, 7, 32)),
            layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(1, 3, strides=1, padding="same"),
        ]
    )
    optimizer = tf.keras.optimizers.Adam(1e-4)
    weights = encoder.trainable_variables + decoder.trainable_variables

    def log_normal(sample: Any, mean: Any, log_variance: Any) -> Any:
        log_2_pi = tf.math.log(2.0 * 3.141592653589793)
        squares = (sample - mean) ** 2.0 * tf.exp(-log_variance)
        return tf.reduce_sum(-0.5 * (squares + log_variance + log_2_pi), axis=1)

    @tf.function
    def train_step(x: Any) -> None:
        with tf.GradientTape() as tape:
            mean, log_variance = tf.split(encoder(x), num_or_size_splits=2, axis=1)
            z = tf.random.normal(shape=tf.shape(mean)) * tf.exp(log_variance * 0.5) + mean
            cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(logits=decoder(z), labels=x)
            log_x = -tf.reduce_sum(cross_entropy, axis=[1, 2, 3])
            loss = -tf.reduce_mean(log_x + log_normal(z, 0.0, 0.0) - log_normal(z, mean, log_variance))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    clock = Clock()
    while True:
        for x in data:
            train_step(x)
            if clock.tick(size):
                return clock


OURS = ("vaelab", "bare loop", "Trainer alone")
WAYS: dict[str, Callable[[str, str], Clock]] = {
    "vaelab": product,
    "bare loop": bare,
    "Trainer alone": trainer_alone,
    "PyTorch example": pytorch_example,
    "pythae": pythae,
    "Keras": keras,
}


def whole(epochs: str, accelerator: str) -> dict[str, float]:
    """The time and the loss of a number of epochs of the MathWorks experiment on MNIST, without images."""
    from hydra import compose, initialize_config_dir

    from vaelab.commands.train import train
    from vaelab.runtime.paths import CONFIGS

    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONFIGS), version_base="1.3"):
        typed = [*ACCELERATORS[accelerator], f"trainer.max_epochs={epochs}", "callbacks=none", "logger=csv"]
        typed += [f"run_dir={folder}", f"+callbacks.laps._target_={Laps.__module__}.Laps"]
        metrics = train(compose("train", ["experiment=mathworks_mnist", *typed]))
    return {"ready": Laps.ready, "seconds": Laps.seconds, "steps": Laps.steps, "loss": metrics["val/loss"]}


def main() -> None:
    """Runs one measurement, and prints it."""
    way, case, accelerator = sys.argv[1:4]
    if way == "operations":
        found: dict[str, float] = {"peak": matrix_peak(accelerator), "per_image": operations_per_image(case)}
        found |= {"bandwidth": bandwidth(accelerator), "bytes": bytes_per_step(case, accelerator)}
    elif way == "whole":
        found = whole(case, accelerator)
    else:
        own = way in OURS  # other projects run with their own settings
        if own:
            keep_freed_memory()
        with flushed_denormals() if own else nullcontext():
            clock = WAYS[way](case, accelerator)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = {"images_per_second": clock.rate, "first_step": clock.first_step, "memory": peak}
    print(json.dumps(found), file=sys.__stdout__)


if __name__ == "__main__":
    main()
