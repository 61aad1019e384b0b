"""The parts of an experiment's configuration: frozen dataclasses that check themselves when they are built."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vae_common.config.checks import (
    LARGEST,
    NEXT_TO_ONE,
    RATE,
    Checked,
    Count,
    CountOrNone,
    Positive,
    Rate,
    Widths,
    counts,
    is_count,
    is_number,
    is_rate,
)
from vae_common.config.likelihoods import LIKELIHOODS, Likelihood
from vae_common.config.objectives import OBJECTIVES
from vae_common.config.registry import MODELS
from vae_common.errors import require

Activation = Literal["relu", "tanh", "softplus", "gelu", "silu"]
if TYPE_CHECKING:
    Reconstruction: TypeAlias = str
    Objective: TypeAlias = str

    class _OfModels:
        """The fields that models bring."""

        def __getattr__(self, name: str) -> Any: ...

    class _OfObjectives:
        """The fields that objectives bring."""

        def __getattr__(self, name: str) -> Any: ...

else:  # the tables decide
    Reconstruction, Objective = Literal[tuple(LIKELIHOODS)], Literal[tuple(OBJECTIVES)]

    @dataclass(frozen=True)
    class _OfModels(*dict.fromkeys(entry.fields for entry in MODELS.values() if entry.fields)):
        """The fields that models bring."""

    @dataclass(frozen=True)
    class _OfObjectives(*dict.fromkeys(entry.fields for entry in OBJECTIVES.values() if entry.fields)):
        """The fields that objectives bring."""


Schedule = Literal["constant", "cosine", "exponential"]
PosteriorHead = Literal["log_std", "log_variance"]
Initializer = Literal["torch_uniform", "glorot_uniform", "lecun_normal"]
KL = Literal["gaussian", "sampled", "tutorial"]
Reduction = Literal["mean", "sum"]
Binarization = Literal["none", "threshold", "static", "dynamic"]
Fit = Literal["crop", "pad"]
Precision = Literal["float64", "float32", "tf32", "bfloat16"]
PRECISIONS: tuple[str, ...] = typing.get_args(Precision)
Execution = Literal["auto", "eager", "compile", "graph"]
Randomness = Literal["shared", "counter", "native"]
Sharding = Literal["data", "data+parameters"]
Device = Literal["auto", "cpu", "cuda", "tpu", "mps"]


@dataclass(frozen=True)
class _Network(Checked):
    hidden: Widths = (512,)
    """Widths of the encoder's dense hidden layers; the decoder has them in reverse."""
    channels: Widths = ()
    """Channels of the encoder's convolutions (kernel 4, stride 2) before its dense layers; none makes an MLP."""
    latent_dim: Count = 2
    """Number of latent dimensions (of the layer that is decoded, where there are two)."""
    activation: Activation = "relu"
    """Non-linearity after each hidden layer."""
    posterior_head: PosteriorHead = "log_std"
    """What the second head of a Gaussian layer says: log sigma, or log sigma^2, as in Flax's own example."""
    classes: CountOrNone = 0
    """Classes whose label the encoder and the decoder are given (conditional VAE; Sohn et al. 2015); 0 gives none."""
    initializer: Initializer = "torch_uniform"
    """torch_uniform: +-1/sqrt(fan_in), biases too; glorot_uniform, lecun_normal (Flax's default): zero biases."""
    output_bias: Literal["initializer", "data_mean"] = "initializer"
    """data_mean: the decoder's output bias starts at the logits of the training images' mean (Burda et al. 2016)."""


@dataclass(frozen=True)
class NetworkConfig(_OfModels, _Network):
    """The encoder's and the decoder's shape. Convolutions, if any, then dense layers; the decoder mirrors them. What a
    model has for itself is declared beside it, in registry.py."""


@dataclass(frozen=True)
class _Loss(Checked):
    reconstruction: Reconstruction = "bernoulli"
    """The negative log-likelihood of the pixels (see likelihoods.py), or the tutorial's squared error."""
    sigma: Positive = 1.0
    """gaussian: its fixed standard deviation, in units of the pixels' range [0, 1]."""
    beta: Rate = 1.0
    """Weight of the KL term."""
    kl: KL = "gaussian"
    """To the standard normal, exact (gaussian) or estimated from the draws; or the tutorial's formula (not a KL)."""
    reduction: Reduction = "mean"
    """Over the batch, for the gradient only; reports are always per image."""
    objective: Objective = "elbo"
    """elbo; iwae (Burda et al. 2016); dreg: its doubly reparameterised gradient (Tucker et al. 2019)."""
    samples: Count = 1
    """Posterior draws per image and training step."""
    kl_warmup: CountOrNone = 0
    """Steps over which the KL's weight grows linearly to beta."""
    kl_stagger: CountOrNone = 0
    """ladder_vae: steps by which each layer's warm-up begins later than that of the layer above it."""
    free_bits: Rate = 0.0
    """Nats per latent dimension, of its KL's mean over the batch, that cost nothing (Kingma et al. 2016, eq. 15)."""
    commitment: Rate = 0.25
    """vq_vae: weight of the commitment term (van den Oord et al. 2017, eq. 3)."""

    def _check(self) -> None:
        require(not self.kl_stagger or self.kl_warmup > 0, "kl_stagger", self.kl_stagger, "0 without kl_warmup")
        exact = self.kl == "gaussian" or not self.free_bits
        require(
            exact, "free_bits", self.free_bits, f"0 beside kl {self.kl}: it needs the exact KL per latent dimension"
        )

    @property
    def likelihood(self) -> Likelihood:
        """What is known of the reconstruction's likelihood."""
        return LIKELIHOODS[self.reconstruction]


@dataclass(frozen=True)
class LossConfig(_OfObjectives, _Loss):
    """The terms of the loss and how they add up. What an objective has for itself is declared beside it, in
    objectives.py."""


@dataclass(frozen=True)
class DataConfig(Checked):
    """Which images, and as what the model sees them."""

    dataset: str = "digits"
    """`digits`, `photos`, a TensorFlow Datasets name such as `mnist`, an .npz or .npy file, or a folder of image files,
    of .npy files or of IDX files."""
    data_dir: str = "data"
    """Where prepared and decoded sets are kept."""
    manual_dir: str | None = None
    """Folder that already holds the set's original files (no download then)."""
    binarization: Binarization = "none"
    """none: grey in [0, 1]; threshold: at 1/2; static: one draw per image; dynamic: one per step."""
    validation_size: int = 0
    """Training images set aside; 0 reports the test split after every epoch."""
    value_range: tuple[float, float] | None = None
    """16-bit and float images: the values that are black and white. By default 0 65535 and 0 1."""
    image_size: int = 0
    """Folders of image files: height and width that they are brought to; 0 takes them as they are. photos: of its
    patches; 0 is 32."""
    fit: Fit = "crop"
    """crop: scaled to fill the image_size and cut in the middle; pad: scaled to fit into it, black around."""
    test_share: float = 0.1
    """Of the images that are tested on, where a folder of image files or an .npy file has no test split."""
    stream: bool = False
    """Leaves images on the disk and reads them where they are needed, for sets that no memory holds; takes randomness
    counter."""
    block: Count = 1
    """Randomness counter: images that lie beside each other, are read at once and come into the same 64 * block images
    of an epoch. Larger ones read faster, and mix less."""
    class_names: tuple[str, ...] = ()
    """What the classes are called in figures, in the order of their labels; by default what the set calls them."""

    def _check(self) -> None:
        require(isinstance(self.dataset, str) and bool(self.dataset), "dataset", self.dataset, "a name or a path")
        require(isinstance(self.data_dir, str), "data_dir", self.data_dir, "a folder's path")
        folder = self.manual_dir is None or isinstance(self.manual_dir, str)
        require(folder, "manual_dir", self.manual_dir, "a folder's path or None")
        require(is_count(self.validation_size, 0), "validation_size", self.validation_size, counts(0))
        span: Any = self.value_range
        numbers = isinstance(span, tuple) and len(span) == 2 and all(map(is_number, span))
        valid = span is None or (numbers and -LARGEST <= span[0] < span[1] <= LARGEST)
        require(valid, "value_range", span, "two numbers, black and white: 0 4095")
        require(isinstance(self.stream, bool), "stream", self.stream, "True or False")
        require(is_count(self.image_size, 0), "image_size", self.image_size, counts(0))
        names: Any = self.class_names
        valid = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        require(valid, "class_names", names, "names, for example cat dog")
        share = self.test_share
        require(is_number(share) and 0 < share < 1, "test_share", share, "a number between 0 and 1")


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """The optimisation: Adam on shuffled mini-batches."""

    epochs: CountOrNone = 20
    """Passes over the training images."""
    batch_size: Count = 128
    """Images per step; a partial last batch is dropped in training, never in evaluation."""
    learning_rate: Positive = 1e-3
    """Adam's step size."""
    precision: Precision = "float32"
    """Of all arithmetic; tf32 (CUDA) and bfloat16: of the matrix products, the rest and all parameters in float32."""
    execution: Execution = "auto"
    """How an epoch's steps run. PyTorch: eager, torch.compile (on CUDA captured as a graph, too), or a captured CUDA
    graph; auto is graph on CUDA unless images stream, else eager. JAX: eager is one jitted call a step, the others one
    program an epoch."""
    randomness: Randomness = "shared"
    """shared: NumPy draws each epoch, equal in both halves; counter: equal, too, but each device makes what it needs at
    each step, and no epoch is drawn at once; native: each framework's own generator."""
    device: Device = "auto"
    """auto: the accelerator that the framework finds, else the CPU."""
    sharding: Sharding = "data"
    """What several devices share: each batch (data), or parameters and the optimiser's moments, too."""

    @property
    def dtype(self) -> str:
        """Of parameters and optimiser: `float64` or `float32`."""
        return "float64" if self.precision == "float64" else "float32"

    @property
    def product_dtype(self) -> str | None:
        """What the operands of matrix products are rounded to, where that is not their own dtype."""
        return "bfloat16" if self.precision == "bfloat16" else None


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """Adam's settings beside its step size, and what is done to gradients and weights around it."""

    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment, after the bias correction."""
    second_moment_start: float = 0.0
    """What the second moment starts at; the IWAE authors' code starts it at 1."""
    schedule: Schedule = "constant"
    """Of the step size: cosine to 0 over decay_steps; exponential: by decay_rate per decay_steps."""
    decay_steps: int = 10_000
    """Steps of the schedule."""
    decay_rate: float = 0.5
    """exponential: what the step size is multiplied by every decay_steps, smoothly."""
    warmup_steps: int = 0
    """Steps over which the step size grows linearly from 0, times the schedule."""
    clip_norm: float = 0.0
    """Longest gradient over all parameters; a longer one is scaled down to it. 0 clips nothing."""
    average: float = 0.0
    """Decay of an exponential moving average of the weights, which evaluations then use; 0 keeps none."""

    def _check(self) -> None:
        for name in ("beta1", "beta2", "average"):
            value = getattr(self, name)
            require(is_rate(value) and value < NEXT_TO_ONE, name, value, "a number from 0 to below 0.99999994")
        for name in ("eps", "second_moment_start", "clip_norm"):
            require(is_rate(getattr(self, name)), name, getattr(self, name), RATE)
        require(is_rate(self.decay_rate) and 0 < self.decay_rate <= 1, "decay_rate", self.decay_rate, "in (0, 1]")
        require(is_count(self.decay_steps), "decay_steps", self.decay_steps, counts(1))
        require(is_count(self.warmup_steps, 0), "warmup_steps", self.warmup_steps, counts(0))
