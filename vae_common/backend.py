"""What a half offers, and how the two halves are found.

`jax_vae` and `torch_vae` are modules that satisfy `Half`. Nothing here imports a framework.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np

from vae_common import machine
from vae_common.errors import InputError, one_line
from vae_common.files import program_cache as cache_folder

if TYPE_CHECKING:
    from pathlib import Path

    from vae_common.config import Config, LossConfig
    from vae_common.contracts import Outputs, Posterior, Terms
    from vae_common.data.splits import Dataset
    from vae_common.profiles import Profile
    from vae_common.randomness import Draws, Start
    from vae_common.runs.epoch_records import EpochRecord
    from vae_common.worlds import World

Framework = Literal["jax", "torch"]
FRAMEWORKS = {"jax": "JAX", "torch": "PyTorch"}
"""The halves' names in records and on command lines, and what people call them."""
HALVES = {"jax": "jax_vae", "torch": "torch_vae"}
"""By name, the packages: nothing else is imported, whatever a file says."""
NEEDS = {"jax": ("jax", "flax", "optax"), "torch": ("torch",)}

Images = np.ndarray
Labels = np.ndarray | None
Array = Any
"""An array of the half's framework, on its device."""
State = Any
"""The half's training state; what consumes one says so."""
Model = Any
Device = Any
EpochProgram = Callable[..., tuple[State, "Terms"]]
"""(state, images, draws[, labels]) to the next state and every step's mean terms."""


class Half(Protocol):
    """One half: the same functions in both, with the same arguments. Their own docstrings say what they do."""

    __name__: str

    @property
    def ACTIVATIONS(self) -> Mapping[str, Callable[[Array], Array]]:
        """Every activation, by its name in the config."""
        ...

    @property
    def distributed(self) -> Distributed:
        """Many processes and devices."""
        ...

    INFERENCE_BATCH: int
    """Images that `encode` and its like take at a time."""

    # device.py
    def select_device(self, name: str = "auto") -> Device: ...
    def device_for(self, config: Config) -> Device: ...
    def execution_for(self, config: Config) -> str: ...
    def precision(self, name: str) -> AbstractContextManager[None]: ...
    def cache_programs(self, folder: str | None) -> None: ...
    def to_device(self, array: np.ndarray, device: Device) -> Array: ...
    def to_numpy(self, array: Array) -> np.ndarray: ...
    def synchronize(self, tree: Any) -> None: ...
    def platform_of(self, device: Device) -> str: ...
    def free_memory(self, device: Device) -> int | None: ...
    def peak_memory(self, device: Device) -> int | None: ...
    def environment(self, name: str = "auto") -> dict[str, str]: ...

    # models and parameters.py
    def create_model(self, config: Config) -> Model: ...
    def model_shapes(self, config: Config) -> dict[str, tuple[int, ...]]: ...
    def parameter_shapes(self, model: Model) -> dict[str, tuple[int, ...]]: ...
    def parameter_starts(self, model: Model) -> dict[str, Start]: ...
    def parameter_dtype(self, model: Model) -> str: ...
    def to_arrays(self, model: Model) -> dict[str, np.ndarray]: ...
    def load_arrays(self, model: Model, arrays: Mapping[str, np.ndarray], dtype: str, device: Device) -> Model: ...

    # loading.py
    def load(self, folder: str | os.PathLike[str]) -> Loaded: ...
    def load_diffusers(
        self,
        folder: str | os.PathLike[str],
        image_shape: tuple[int, int, int] | None = None,
        precision: str = "",
    ) -> Loaded: ...
    def save_diffusers(
        self,
        model: Model,
        config: Config,
        folder: str | os.PathLike[str],
        carried: Mapping[str, Any] | None = None,
    ) -> None: ...

    # state.py and step.py
    def create_state(self, config: Config, images: Images | None = None) -> State: ...
    def lost_part(self, state: State) -> str | None: ...
    def state_to_arrays(self, state: State) -> dict[str, np.ndarray]: ...
    def state_from_arrays(self, config: Config, arrays: Mapping[str, np.ndarray]) -> State: ...
    def train_step(self, state: State, images: Any, noise: Any, labels: Any = None) -> tuple[State, Terms]: ...
    def gradients(
        self, state: State, images: Any, noise: Any, labels: Any = None
    ) -> tuple[dict[str, np.ndarray], Terms]: ...
    def apply_gradients(self, state: State, arrays: Mapping[str, np.ndarray]) -> State: ...

    # batches.py
    def prepare_images(self, images: Array, thresholds: Array | None, dtype: Any) -> Array: ...
    def place_images(self, images: Images, config: Config) -> Array: ...
    def place_labels(self, labels: np.ndarray, config: Config) -> Array: ...
    def epoch_draws(self, config: Config, epoch: int, images: int, drawn: Draws | None = None) -> Draws: ...
    def step_draws(self, config: Config, draws: Draws, step: int) -> Draws: ...

    # execution.py, ensembles.py and fitting.py
    def train_epoch(self, state: State, images: Array, draws: Draws, labels: Array = None) -> tuple[State, Terms]: ...
    def compile_epoch(self, state: State, images: Array, draws: Draws, labels: Array = None) -> EpochProgram: ...
    def stack_states(self, states: Sequence[State]) -> State: ...
    def unstack_states(self, state: State) -> list[State]: ...
    def state_draws(self, state: State, epoch: int, images: int, drawn: Sequence[Draws | None] = (None,)) -> Draws: ...
    def seed_configs(self, state: State) -> list[Config]: ...
    def fit(
        self,
        state: State,
        dataset: Dataset,
        *,
        on_epoch: Callable[[State, EpochRecord], None] | None = None,
        on_start: Callable[[State], None] | None = None,
        on_part: Callable[[State, int, Callable[[], Terms]], None] | None = None,
        done: Terms | None = None,
    ) -> State: ...

    # losses.py and likelihoods.py
    def loss_terms(self, loss: LossConfig, outputs: Outputs, images: Array) -> Terms: ...
    def pixel_means(self, logits: Array, reconstruction: str = "bernoulli") -> Array: ...

    # inference.py and estimation.py
    def forward(self, model: Model, images: Images, noise: np.ndarray, labels: Labels = None) -> Outputs: ...
    def encode(self, model: Model, images: Images, labels: Labels = None) -> Posterior: ...
    def decode(self, model: Model, latents: np.ndarray, labels: Labels = None) -> np.ndarray: ...
    def reconstruct(self, model: Model, images: Images, labels: Labels = None) -> np.ndarray: ...
    def sample(self, model: Model, count: int, seed: int = 0, labels: Labels = None) -> np.ndarray: ...
    def generate(self, model: Model, noise: np.ndarray, labels: Labels = None) -> np.ndarray: ...
    def interpolate(
        self,
        model: Model,
        first: np.ndarray,
        second: np.ndarray,
        steps: int = 12,
        labels: tuple[int, int] | None = None,
    ) -> np.ndarray: ...
    def evaluate(self, model: Model, images: Images, config: Config, labels: Labels = None) -> Terms: ...
    def log_marginal(
        self,
        model: Model,
        images: Images,
        config: Config,
        samples: int = 5000,
        labels: Labels = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Marginal: ...


class Distributed(Protocol):
    """A half's distributed.py, as far as others use it."""

    def start(self, world: World, devices: int = 1, device: str = "auto") -> None: ...
    def stop(self) -> None: ...
    def world(self) -> World: ...
    def devices(self) -> int: ...
    def require_shareable(self, config: Config) -> None: ...
    def agree(self, error: str | None) -> list[str]: ...


class Loaded(Protocol):
    """A trained model, and the experiment that it comes from."""

    @property
    def model(self) -> Model: ...
    @property
    def config(self) -> Config: ...


class Marginal(Protocol):
    """Importance-weighted estimates of each image's marginal likelihood, float64 (N,)."""

    @property
    def log_likelihood(self) -> np.ndarray: ...
    @property
    def error(self) -> np.ndarray: ...


Repeated = Callable[[int], None]
"""Runs that many times, and waits for the result."""


class Microbenchmarks(Protocol):
    """A half's microbenchmarks.py, which its package does not import by itself."""

    def matrix_products(self, config: Config, products: Sequence[tuple[int, int, bool]]) -> Repeated: ...
    def products_and_adam(self, config: Config, products: Sequence[tuple[int, int, bool]]) -> Repeated: ...
    def adam_updates(self, config: Config) -> Repeated: ...
    def streaming(self, config: Config, count: int) -> Repeated: ...
    def step_parts(self, config: Config) -> dict[str, Repeated]: ...
    def counted_flops(self, config: Config) -> float | None: ...


class Profiling(Protocol):
    """A half's profiling.py, which its package does not import by itself."""

    def profile(self, config: Config, images: Array, folder: Path) -> Profile: ...


Halves = Mapping[str, Half]
"""The halves at hand, by name: one or both."""


def name_of(half: Half) -> str:
    """A half's name in records: `jax` or `torch`."""
    return half.__name__.removesuffix("_vae")


def missing(framework: str) -> list[str]:
    """The packages that a half needs and that are not installed."""
    return [name for name in NEEDS[framework] if importlib.util.find_spec(name) is None]


def installed() -> tuple[Framework, ...]:
    """The halves that can be loaded here, by name; both where neither can: what is missing is then said of one."""
    names: tuple[Framework, ...] = ("jax", "torch")
    return tuple(name for name in names if not missing(name)) or names


def installed_half(framework: str) -> str:
    """The half of that name; where it is not installed the other one, which reads the same files, with a notice."""
    (other,) = (name for name in HALVES if name != framework)
    if not missing(framework) or missing(other):
        return framework
    said = f"{', '.join(missing(framework))} is not installed; {other} does the work of {framework}"
    print(f"notice: {said}", file=sys.stderr)
    return other


def load_halves(*frameworks: str, program_cache: bool = True, threads: int | None = None) -> dict[str, Half]:
    """The halves by name; a framework that is not asked for is not imported.

    With `program_cache` they keep compiled programs in the user's cache folder, and find them there. `threads` is how
    many each takes (see `machine.settle`). With PyTorch among them memory that arrays give back is kept. What is there
    once a framework is imported, Python's collector of cycles leaves alone from then on.
    """
    machine.settle(threads)
    if "torch" in frameworks:
        machine.keep_memory()
    for name in frameworks:
        if name not in HALVES:
            raise InputError(f"framework: received {name!r}, expected one of {', '.join(HALVES)}")
        if missing(name):
            raise InputError(
                f"framework: {name} needs {', '.join(missing(name))}, which is not installed: "
                f"install the project with its extra: pip install '.[{name}]'"
            )
    halves = {name: _imported(name) for name in frameworks}
    folder = cache_folder() if program_cache else None
    if program_cache and folder is None:
        said = "no folder of this user's own could be made for compiled programs; they are not kept"
        print(f"notice: {said} (XDG_CACHE_HOME chooses its place)", file=sys.stderr)
    for half in halves.values():
        half.cache_programs(None if folder is None else str(folder))
    return halves


def load_microbenchmarks(half: Half) -> Microbenchmarks:
    """A half's microbenchmarks."""
    return cast(Microbenchmarks, importlib.import_module(f"{half.__name__}.microbenchmarks"))


def load_profiling(half: Half) -> Profiling:
    """A half's profiler of steps."""
    return cast(Profiling, importlib.import_module(f"{half.__name__}.profiling"))


def _imported(framework: str) -> Half:
    try:
        with contextlib.nullcontext() if HALVES[framework] in sys.modules else _uncollected():
            return cast(Half, importlib.import_module(HALVES[framework]))
    except (ImportError, ValueError) as error:  # a broken installation, or a variable that the framework cannot read
        said = f"framework: {framework} cannot be imported ({one_line(error, 200)})"
        raise InputError(f"{said}; check its installation and its environment variables") from error


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Python's collector of cycles rests, and leaves alone for good what is there afterwards.

    A framework's modules are hundreds of thousands of objects that stay. The collector goes through them again and
    again while they are imported, whenever it looks at everything, and at the end: an eighth of a short training.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
