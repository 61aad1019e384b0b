"""What a user would pick instead, trained on the same images by their own loops, in an environment of their own.

PYTHON peers.py '{"peer": "numpyro", "hidden": 400, "latent_dim": 50, ...}'

This file is run by the interpreter that has the peers, so it imports nothing of this project. It trains a VAE of one
hidden layer, Bernoulli likelihood, Adam at 1e-3, float32, for whole epochs over noise, and prints one line of JSON: the
seconds of each epoch and the mean loss of each, in nats an image. Compiling falls into the first epoch.

numpyro: `SVI.update` in a `lax.fori_loop` over an epoch, as its own VAE example has it.
keras on jax, keras on torch: a functional model, `add_loss`, `fit`.
pythae: its `VAE` with an encoder and decoder of this network, its `BaseTrainer`.
flax recipe: this file's own writing of what Flax's VAE example does: a jitted step, called for every batch of an epoch
that NumPy shuffled, Optax's Adam.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

PACKAGES = {
    "numpyro": ("numpyro", "jax"),
    "keras on jax": ("keras", "jax"),
    "keras on torch": ("keras", "torch"),
    "pythae": ("pythae", "torch"),
    "flax recipe": ("flax", "optax", "jax"),
}
"""By peer, what it consists of."""


@dataclass(frozen=True)
class Task:
    """What a peer trains."""

    peer: str
    hidden: int
    latent_dim: int
    activation: str
    """relu or softplus."""
    dynamic: bool
    """Whether pixels are drawn anew at every step; numpyro alone does that."""
    batch_size: int
    images: int
    epochs: int


@dataclass(frozen=True)
class Epochs:
    """What came of it, epoch by epoch."""

    seconds: list[float]
    losses: list[float]


def images_of(task: Task) -> np.ndarray:
    """Grey noise in [0, 1], float32 (N, 784): what an epoch costs does not depend on what images show."""
    pixels = np.random.default_rng(0).integers(0, 256, (task.images, 784), np.uint8)
    return pixels.astype(np.float32) / 255


def by_numpyro(task: Task) -> Epochs:
    """NumPyro's SVI: an epoch is one program, its order drawn on the host."""
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions, optim
    from numpyro.infer import SVI, Trace_ELBO

    activation = {"relu": jax.nn.relu, "softplus": jax.nn.softplus}[task.activation]

    def layer(name: str, inputs: int, outputs: int) -> Any:
        bound = inputs**-0.5
        key = jax.random.split(jax.random.key(sum(map(ord, name))))
        weight = numpyro.param(
            f"{name}.weight", jax.random.uniform(key[0], (inputs, outputs), minval=-bound, maxval=bound)
        )
        return weight, numpyro.param(
            f"{name}.bias", jax.random.uniform(key[1], (outputs,), minval=-bound, maxval=bound)
        )

    def affine(x: Any, parameters: Any) -> Any:
        weight, bias = parameters
        return x @ weight + bias

    def model(batch: Any) -> None:
        first, last = layer("d1", task.latent_dim, task.hidden), layer("d2", task.hidden, 784)
        with numpyro.plate("images", len(batch)):
            prior = distributions.Normal(jnp.zeros(task.latent_dim), 1.0).to_event(1)
            z = numpyro.sample("z", prior)
            logits = affine(activation(affine(z, first)), last)
            numpyro.sample("pixels", distributions.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=batch)

    def guide(batch: Any) -> None:
        first = layer("e1", 784, task.hidden)
        mean, log_std = layer("mean", task.hidden, task.latent_dim), layer("log_std", task.hidden, task.latent_dim)
        features = activation(affine(batch, first))
        with numpyro.plate("images", len(batch)):
            posterior = distributions.Normal(affine(features, mean), jnp.exp(affine(features, log_std))).to_event(1)
            numpyro.sample("z", posterior)

    images, svi = jnp.asarray(images_of(task)), SVI(model, guide, optim.Adam(1e-3), Trace_ELBO())
    steps = task.images // task.batch_size

    @jax.jit
    def epoch(state: Any, order: Any, key: Any) -> Any:
        def step(place: Any, carried: Any) -> Any:
            state, total = carried
            batch = images[jax.lax.dynamic_slice_in_dim(order, place * task.batch_size, task.batch_size)]
            if task.dynamic:
                batch = jax.random.bernoulli(jax.random.fold_in(key, place), batch).astype(jnp.float32)
            state, loss = svi.update(state, batch)
            return state, total + loss

        return jax.lax.fori_loop(0, steps, step, (state, 0.0))

    state, rng = svi.init(jax.random.key(0), images[: task.batch_size]), np.random.default_rng(0)

    def train(number: int) -> float:
        nonlocal state
        state, total = epoch(state, jnp.asarray(rng.permutation(task.images)), jax.random.key(number))
        return float(total) / (steps * task.batch_size)

    return _timed(train, task.epochs)


def by_keras(task: Task) -> Epochs:
    """Keras: the backend is chosen before it is imported."""
    os.environ["KERAS_BACKEND"] = task.peer.rpartition(" ")[2]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers, ops

    class Draw(layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.noise = keras.random.SeedGenerator(0)

        def call(self, parameters: Any) -> Any:
            mean, log_std = parameters
            kl = ops.sum((ops.exp(2 * log_std) + mean**2 - 1) / 2 - log_std, -1)
            self.add_loss(ops.mean(kl))
            return mean + ops.exp(log_std) * keras.random.normal(ops.shape(mean), seed=self.noise)

    inputs = keras.Input((784,))
    features = layers.Dense(task.hidden, task.activation)(inputs)
    z = Draw()([layers.Dense(task.latent_dim)(features), layers.Dense(task.latent_dim)(features)])
    logits = layers.Dense(784)(layers.Dense(task.hidden, task.activation)(z))
    model = keras.Model(inputs, logits)

    def reconstruction(pixels: Any, logits: Any) -> Any:
        return ops.sum(ops.softplus(logits) - pixels * logits, -1)

    model.compile(keras.optimizers.Adam(1e-3), loss=reconstruction)
    images = images_of(task)

    def train(_: int) -> float:
        return float(model.fit(images, images, batch_size=task.batch_size, epochs=1, verbose=0).history["loss"][-1])

    return _timed(train, task.epochs)


def by_pythae(task: Task) -> Epochs:
    """pythae: its trainer with its own loader and progress bar."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    activation = {"relu": torch.nn.ReLU, "softplus": torch.nn.Softplus}[task.activation]

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.hidden = torch.nn.Sequential(torch.nn.Linear(784, task.hidden), activation())
            self.mean, self.log_variance = (torch.nn.Linear(task.hidden, task.latent_dim) for _ in range(2))

        def forward(self, x: Any) -> Any:
            features = self.hidden(x.reshape(-1, 784))
            return ModelOutput(embedding=self.mean(features), log_covariance=self.log_variance(features))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            first, last = torch.nn.Linear(task.latent_dim, task.hidden), torch.nn.Linear(task.hidden, 784)
            self.layers = torch.nn.Sequential(first, activation(), last, torch.nn.Sigmoid())

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))

    begins: list[float] = []
    ends: list[float] = []
    losses: list[float] = []

    class Clock(TrainingCallback):  # type: ignore[misc]
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            begins.append(time.perf_counter())

        def on_log(self, _: Any, logs: Any, **__: Any) -> None:
            if "train_epoch_loss" in logs:
                losses.append(float(logs["train_epoch_loss"]))

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    model = VAE(
        VAEConfig(input_dim=(1, 28, 28), latent_dim=task.latent_dim, reconstruction_loss="bce"), Encoder(), Decoder()
    )
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=task.epochs,
            per_device_train_batch_size=task.batch_size,
            learning_rate=1e-3,
            optimizer_cls="Adam",
            no_cuda=not torch.cuda.is_available(),
        )
        pipeline = TrainingPipeline(training_config=config, model=model)
        pipeline(train_data=images_of(task).reshape(-1, 1, 28, 28), callbacks=[Clock()])
    return Epochs([end - begun for begun, end in zip(begins, ends)], losses)


def by_flax(task: Task) -> Epochs:
    """The recipe of Flax's VAE example: a jitted step, called for each batch."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen

    activation = {"relu": linen.relu, "softplus": linen.softplus}[task.activation]

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x: Any, key: Any) -> Any:
            features = activation(linen.Dense(task.hidden)(x))
            mean, log_variance = linen.Dense(task.latent_dim)(features), linen.Dense(task.latent_dim)(features)
            z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
            return linen.Dense(784)(activation(linen.Dense(task.hidden)(z))), mean, log_variance

    network, optimizer, images = Network(), optax.adam(1e-3), images_of(task)
    parameters = network.init(jax.random.key(0), jnp.ones((1, 784)), jax.random.key(1))
    state = parameters, optimizer.init(parameters)

    @jax.jit
    def step(state: Any, batch: Any, key: Any) -> Any:
        def objective(parameters: Any) -> Any:
            logits, mean, log_variance = network.apply(parameters, batch, key)  # type: ignore[misc]
            reconstruction = optax.sigmoid_binary_cross_entropy(logits, batch).sum(-1).mean()
            return reconstruction - (1 + log_variance - mean**2 - jnp.exp(log_variance)).sum(-1).mean() / 2

        parameters, moments = state
        loss, gradients = jax.value_and_grad(objective)(parameters)
        updates, moments = optimizer.update(gradients, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), loss

    rng, steps = np.random.default_rng(0), task.images // task.batch_size

    def train(number: int) -> float:
        nonlocal state
        order, losses = rng.permutation(task.images), []
        for place, key in enumerate(jax.random.split(jax.random.key(number), steps)):
            batch = images[order[place * task.batch_size : (place + 1) * task.batch_size]]
            state, loss = step(state, batch, key)
            losses.append(loss)
        return float(jnp.stack(losses).mean())

    return _timed(train, task.epochs)


def _timed(train: Callable[[int], float], epochs: int) -> Epochs:
    seconds, losses = [], []
    for epoch in range(epochs):
        begun = time.perf_counter()
        losses.append(train(epoch))
        seconds.append(time.perf_counter() - begun)
    return Epochs(seconds, losses)


PEERS: dict[str, Callable[[Task], Epochs]] = {
    "numpyro": by_numpyro,
    "keras on jax": by_keras,
    "keras on torch": by_keras,
    "pythae": by_pythae,
    "flax recipe": by_flax,
}


def main(text: str) -> dict[str, Any]:
    """Seconds, losses and versions of a peer's epochs."""
    task = Task(**json.loads(text))
    printed = os.dup(1)  # the last line is this program's, whatever a peer prints
    os.dup2(2, 1)
    found = PEERS[task.peer](task)
    sys.stdout.flush()
    os.dup2(printed, 1)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES[task.peer])
    return {"seconds": found.seconds, "losses": found.losses, "versions": versions}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
