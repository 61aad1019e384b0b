"""One process of a world that trains together: what test_distributed.py starts. The first writes what came out.

python -m tests.halves.shared_training torch FOLDER CASES [RESUMED], with torchrun's variables.
"""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np

from tests.conformance.planting import forget_programs
from vae_common import worlds
from vae_common.config import Config, DataConfig, LossConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from vae_common.conformance.engine.faults import patched
from vae_common.contracts import map_arrays
from vae_common.data import seen, streams

SHAPE, IMAGES, EPOCHS = (7, 6, 1), 1300, 2
TRAINING = TrainingConfig(precision="float64", batch_size=127)  # which no number of devices divides
SMALL = NetworkConfig(hidden=(16,), latent_dim=4)
OPTIMIZER = OptimizerConfig(clip_norm=0.5, schedule="cosine", decay_steps=40, average=0.9)
CODES = NetworkConfig(
    code_layout="grid", channels=(4, 4), codes=8, code_dim=3, codebook_update="moving_average", codebook_decay=0.8,
    restart_below=0.3,
)  # fmt: skip
RESIDUAL = NetworkConfig(block_channels=(4, 8), norm_groups=2, latent_channels=2)
CONFIGS = {
    "plain": Config(network=SMALL, data=DataConfig(binarization="dynamic"), optimizer=OPTIMIZER),
    "free bits, a sum": Config(network=SMALL, loss=LossConfig(free_bits=0.1, reduction="sum", kl_warmup=10)),
    "beta-TC": Config(network=SMALL, loss=LossConfig(objective="beta_tc"), train_images=IMAGES),
    "DReG": Config(network=SMALL, loss=LossConfig(objective="dreg", samples=3)),
    "labels": Config(network=dataclasses.replace(SMALL, classes=3)),
    "counters": Config(
        network=SMALL, data=DataConfig(binarization="dynamic"), training=TrainingConfig(randomness="counter")
    ),
    "stream": Config(
        network=dataclasses.replace(SMALL, classes=3),
        data=DataConfig(binarization="dynamic", stream=True),
        training=TrainingConfig(randomness="counter"),
    ),
    "codes": Config("vq_vae", image_shape=(8, 6, 1), network=CODES),
    "residual": Config("kl_autoencoder", image_shape=(8, 6, 1), network=RESIDUAL),
}
"""What is defined on the global batch."""


def config_of(case: str, sharding: str = "data") -> Config:
    """A case's config."""
    config = CONFIGS[case]
    training = dataclasses.replace(TRAINING, sharding=sharding, randomness=config.training.randomness)
    shape = SHAPE if config.image_shape == Config().image_shape else config.image_shape
    return dataclasses.replace(config, image_shape=shape, training=training)


def images_of(config: Config) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, *config.image_shape)).astype(np.uint8)


def trained(half, config: Config, state=None, first: int = 0, epochs: int = EPOCHS) -> dict[str, np.ndarray]:
    """The canonical state after so many epochs, every step's terms, and an evaluation."""
    images = images_of(config)
    state = half.create_state(config, images) if state is None else state
    steps = []
    for part in (
        streamed(half, config, images, first, epochs)
        if config.data.stream
        else whole(half, config, images, first, epochs)
    ):
        state, terms = half.train_epoch(state, *part)
        steps.append(map_arrays(half.to_numpy, terms))
    terms = map_arrays(lambda *each: np.concatenate(each), *steps)
    grey = dataclasses.replace(config, data=DataConfig())
    given = np.arange(101) % 3 if config.network.classes else None
    evaluated = half.evaluate(state.evaluated, images[:101], grey, given)
    if config.data.stream:  # part by part, of which the last one is too small for every process
        with patched([(seen, "EVALUATED", 50)]):
            held = seen.SeenStream(Counted(images[:101]), "static", "test")
            evaluated = half.evaluate(state.evaluated, held, config, given)
    arrays = half.state_to_arrays(state)
    named = {f"term {name}": term for name, term in terms.named().items()}
    return arrays | named | {f"evaluated {name}": term for name, term in evaluated.named().items()}


def whole(half, config, images, first, epochs):
    """What an epoch of images in memory is given."""
    placed = half.place_images(images, config)
    labels = [half.place_labels(np.arange(IMAGES) % 3, config)] if config.network.classes else []
    for epoch in range(first, first + epochs):
        yield placed, half.epoch_draws(config, epoch, IMAGES), *labels


class Counted(streams.Stream):
    """Images as if on a disk, and how many were read."""

    where = "here"

    def __init__(self, images):
        self.images, self.count = images, 0

    @property
    def shape(self):
        return self.images.shape

    def read(self, rows, found, places):
        self.count += len(rows)
        found[places] = self.images[rows]

    def identity(self):
        return ""


def streamed(half, config, images, first, epochs):
    """What the steps of a stream are given, four at a time; no process reads images of another's."""
    stream, batch = Counted(images), config.training.batch_size
    own = half.distributed.own_part(batch)
    with patched([(streams, "CHUNK", 4 * batch * stream.image_bytes)]):
        for epoch in range(first, first + epochs):
            for chunk in streams.chunks(stream, np.arange(IMAGES) % 3, config, epoch, 0, own):
                yield half.batches.place_chunk(chunk, config, epoch)
    assert stream.count == epochs * (IMAGES // batch) * (own.stop - own.start), stream.count


def mean_of_means(half):
    """A fault: each process's own mean, averaged; with parts of 64 and 63 images that is another number."""

    def batch_means(arrays):
        if half.__name__ == "torch_vae":
            return map_arrays(lambda array: array.mean(), arrays)
        return map_arrays(lambda array: (array[:64].mean() + array[64:].mean()) / 2, arrays)

    return [(half.objectives, "batch_means", batch_means)]


def noise_of_the_first(half):
    """A fault: every process draws what the first one draws."""
    original = half.batches.split

    def split(draw):
        repeated = np.arange(127) % 64
        noise = draw.noise[repeated if half.__name__ == "torch_vae" else half.step.jax.numpy.asarray(repeated)]
        return original(draw._replace(noise=noise))

    return [(half.batches, "split", split)]


FAULTS = {"a mean of means": mean_of_means, "the first one's noise": noise_of_the_first}


def main(framework: str, folder: str, cases: str, resumed: str = "") -> None:
    half, world = importlib.import_module(f"{framework}_vae"), worlds.from_environment()
    half.distributed.start(world, device="cpu")
    for case in cases.split(";"):
        name, _, what = case.partition("@")
        config = config_of(name, "data" if what in FAULTS else what)
        with patched(FAULTS[what](half) if what in FAULTS else []):
            if what in FAULTS:
                forget_programs(half)
            found = trained(half, config)
        if world.rank == 0:
            np.savez(Path(folder) / f"{framework}-{world.size}-{case}.npz", **found)
    if resumed:
        config, given = config_of("plain", "data+parameters"), dict(np.load(resumed))
        found = trained(half, config, half.state_from_arrays(config, given), 2, 1)
        if world.rank == 0:
            np.savez(Path(folder) / f"{framework}-{world.size}-resumed.npz", **found)
    half.distributed.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
