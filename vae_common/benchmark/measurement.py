"""One benchmark case, measured in a process of its own: what a start costs, and what a step costs.

A step is held against the floor of the same machine in the same process: its matrix products plus Adam's update,
each by the fastest library at hand, run over and over. (`step_over_turns` holds it against the two in turn, by the
fastest library for both, with caches as they are in a step.) Floor and step take turns, so that the drift of a
shared machine hits both alike. Steps are warmed up, waited for, and read back outside the timed regions; whole
epochs include the drawing of their numbers and the reading of their losses.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vae_common import machine
from vae_common.backend import Half, Halves, Repeated, load_microbenchmarks
from vae_common.benchmark import costs, lower_bounds
from vae_common.benchmark.cases import Case
from vae_common.benchmark.records import Ceilings, Record, Rounds, Summary
from vae_common.config import Config
from vae_common.contracts import map_arrays
from vae_common.data import datasets, memory
from vae_common.data.ahead import Ahead, epochs_at_once

WARM_UP = 0.04
"""Seconds that a turn runs before its clock starts: the threads of the library before it still spin for some
time, and its own have to be woken and spread over the cores."""


def require_measurable(half: Half, case: Case) -> None:
    """Raises InputError where the device, its arithmetic or the memory is not there; nothing is measured."""
    config = case.config()
    images = case.images or _steps_of(case, True) * case.batch_size
    free = half.free_memory(half.device_for(config))
    memory.require(config, half.model_shapes(config), images, free, case.ensemble)


def measure(half: Half, case: Case, imported: float, others: Callable[[], Halves]) -> Record:
    """Measures a case; `imported` is what importing the half took, `others` gives every half for the floor."""
    config = case.config()
    platform = half.platform_of(half.device_for(config))
    if case.kind == "loss":
        record = _test_loss(half, config, case, imported)
        record = replace(record, **_peaks(half, config))
    else:
        steps, timed = _steps_of(case, platform == "cpu"), case.kind in ("step", "network")
        start = _start(half, config, case, imported) if case.kind != "epoch" else None
        if case.kind == "warm":
            record = Record(case, start_seconds=start)
        else:
            record = _epochs(half, config, case, steps, 3 if timed else case.rounds)
            # Before what only the floor needs is imported.
            record = replace(record, start_seconds=start, **_peaks(half, config))
        if timed:
            record = _with_steps(record, half, config, platform == "cpu", others)
    return replace(record, platform=platform, environment=_environment(half, case))


def measure_recipe(half: Half, case: Case) -> Record:
    """Whole epochs of the half's recipe, as `measure` has them of the half."""
    config = case.config()
    images = synthetic_images(config, case.images or 60 * case.batch_size)
    recipe = importlib.import_module(f"{half.__name__}.recipe")
    seconds = recipe.recipe_epochs(config, images, case.rounds + 1)[1:]
    record = of_epochs(case, seconds, len(images) // case.batch_size)
    platform = half.platform_of(half.device_for(config))
    return replace(record, platform=platform, environment=_environment(half, case))


def _environment(half: Half, case: Case) -> dict[str, str]:
    return {
        **half.environment(case.device),
        "instructions": " ".join(machine.instructions()),
        "python": sys.version.split()[0],
    }


def of_epochs(case: Case, seconds: list[float], steps: int) -> Record:
    """The record of whole epochs that took so many seconds each."""
    return Record(
        case,
        steps=steps,
        rounds=Rounds(epoch_seconds=seconds),
        epoch_seconds=Summary.of(seconds),
        images_per_second=steps * case.batch_size * case.ensemble / statistics.median(seconds),
    )


def _peaks(half: Half, config: Config) -> dict[str, Any]:
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_device_bytes": half.peak_memory(half.device_for(config)),
    }


def _steps_of(case: Case, on_cpu: bool) -> int:
    """Steps of an epoch: those of the images asked for, or as many as a round needs to be timed well."""
    if case.images:
        return case.images // case.batch_size
    return max(8 if on_cpu else 32, min(120 if case.ensemble == 1 else 60, 120 * 128 // case.batch_size))


def synthetic_images(config: Config, count: int) -> np.ndarray:
    """uint8 noise: what a step costs does not depend on what the images show."""
    return np.random.default_rng(0).integers(0, 256, (count, *config.image_shape), np.uint8)


def _state(half: Half, config: Config, seeds: int) -> Any:
    images = synthetic_images(config, config.training.batch_size)
    states = [half.create_state(replace(config, seed=config.seed + place), images) for place in range(seeds)]
    return states[0] if seeds == 1 else half.stack_states(states)


def _placed(half: Half, config: Config, count: int) -> tuple[Any, list[Any]]:
    """So many images on the device, and their labels where the model is given classes."""
    images, classes = half.place_images(synthetic_images(config, count), config), config.network.classes
    return images, [half.place_labels(np.arange(count) % classes, config)] if classes else []


def _start(half: Half, config: Config, case: Case, imported: float) -> dict[str, float]:
    """What passes before the first step is done, in its parts."""
    marks = [time.perf_counter()]
    images, labels = _placed(half, config, _steps_of(case, True) * case.batch_size)
    state = _state(half, config, case.ensemble)
    draws = half.state_draws(state, 0, case.batch_size)  # an epoch of one step
    half.synchronize((images, draws))
    marks.append(time.perf_counter())
    program = half.compile_epoch(state, images, draws, *labels)
    marks.append(time.perf_counter())
    half.synchronize(program(state, images, draws, *labels)[1])
    marks.append(time.perf_counter())
    taken = (b - a for a, b in itertools.pairwise(marks))
    parts = {"import": imported} | dict(zip(("build", "compile", "first_step"), taken))
    return parts | {"to_first_step": sum(parts.values())}


def _epoch_run(half: Half, config: Config, seeds: int, steps: int) -> Callable[[], None]:
    images, labels = _placed(half, config, steps * config.training.batch_size)
    state = _state(half, config, seeds)
    draws = half.state_draws(state, 0, len(images))
    program = half.compile_epoch(state, images, draws, *labels)

    def run() -> None:
        nonlocal state
        state, terms = program(state, images, draws, *labels)
        half.synchronize(terms)

    return run


@dataclass(frozen=True)
class _Turn:
    """What is timed in every round: so many repetitions of it."""

    kind: str
    """That of a bound, or what is timed of the half itself."""
    name: str
    """The bound's library, or the part of the half."""
    run: Repeated
    repeats: int
    warmed_up: bool = False
    """Whether what is timed before has woken its threads."""
    rest: float = 0.0
    """Seconds to let go by afterwards."""


PART, WHOLE, SINGLE = "part", "step", "single"
"""Kinds of what is timed of the half: parts of a step, steps, and those of one seed where there are several."""
Seconds = dict[str, dict[str, list[float]]]
"""By kind and name, one number a round."""


def _with_steps(record: Record, half: Half, config: Config, on_cpu: bool, others: Callable[[], Halves]) -> Record:
    """A record with steps against their lower bounds and beside their parts, all taking turns."""
    # On a CPU as much as weights, gradient and moments, so as deep in the caches; else more than any cache holds.
    elements = 4 * costs.parameters(config) // 3 if on_cpu else 2**26
    counted = costs.is_counted(config) and (on_cpu or record.case.ensemble == 1)  # else its cost is what is asked for
    bounds = lower_bounds.bounds(half, others, config, elements, on_cpu) if counted else []
    seconds = _timed(_turns(half, config, record, on_cpu, bounds), record.case.rounds)
    medians = {kind: {name: statistics.median(values) for name, values in of.items()} for kind, of in seconds.items()}
    rounds = replace(record.rounds, step_seconds=seconds[WHOLE][WHOLE])
    step = medians[WHOLE][WHOLE]
    record = replace(
        record,
        rounds=rounds,
        step_seconds=Summary.of(rounds.step_seconds),
        images_per_second=config.training.batch_size / step,
        part_seconds=medians[PART] | {WHOLE: step} if PART in medians else None,
    )
    if SINGLE in seconds:
        pairs = zip(rounds.step_seconds, seconds[SINGLE][SINGLE])
        cost = Summary.of([record.case.ensemble * step / one for step, one in pairs])
        record = replace(record, ensemble_cost=cost)
    return _with_floor(record, half, config, seconds, elements) if counted else record


def _with_floor(record: Record, half: Half, config: Config, seconds: Seconds, elements: int) -> Record:
    """A record with its steps over what they cannot go below, each by the fastest library."""
    medians = {
        kind: {name: statistics.median(values) for name, values in seconds[kind].items()}
        for kind in ("turns", "products", "adam", "streaming")
    }
    fastest = {kind: min(of, key=lambda library: of[library]) for kind, of in medians.items()}
    products, adam = (seconds[kind][fastest[kind]] for kind in ("products", "adam"))
    rounds = replace(
        record.rounds,
        floor_seconds=[p + a for p, a in zip(products, adam)],
        turns_seconds=seconds["turns"][fastest["turns"]],
    )
    record = replace(
        record,
        rounds=rounds,
        step_over_floor=Summary.of(rounds.step_over_floor),
        step_over_turns=Summary.of(rounds.step_over_turns),
        fastest=fastest,
        bound_seconds=medians,
    )
    bandwidth = 12 * elements / medians["streaming"][fastest["streaming"]]
    return _with_ceilings(record, half, config, medians["products"][fastest["products"]], bandwidth)


def _turns(
    half: Half, config: Config, record: Record, on_cpu: bool, bounds: Sequence[lower_bounds.Bound]
) -> list[_Turn]:
    """What takes turns: the bounds, the parts of a step, steps, and those of one seed where there are several."""
    steps, seeds = record.steps or 1, record.case.ensemble
    repeats = max(2, min(steps, 120 * 128 // config.training.batch_size) // 8) if on_cpu else 60
    epoch = _epoch_run(half, config, seeds, steps)
    turns = [_Turn(bound.kind, bound.library, bound.run, repeats, rest=bound.rest) for bound in bounds]
    # On an accelerator a part by itself takes what its launches take: `twin-vae profile` has them.
    parts = load_microbenchmarks(half).step_parts(config) if record.case.kind == "step" and on_cpu else {}
    turns += [_Turn(PART, name, part, repeats) for name, part in parts.items()]
    turns.append(_Turn(WHOLE, WHOLE, lambda _: epoch(), steps * seeds, warmed_up=bool(parts)))  # by its parts
    if seeds > 1:
        single = _epoch_run(half, config, 1, steps)
        turns.append(_Turn(SINGLE, SINGLE, lambda _: single(), steps, warmed_up=True))
    return turns


def _timed(turns: Sequence[_Turn], rounds: int) -> Seconds:
    """Seconds of one repetition of each, by round; a round before the first warms up."""
    seconds: Seconds = {}
    for warming in (True, *[False] * rounds):
        for turn in turns:
            end = time.perf_counter() + WARM_UP
            while not turn.warmed_up and time.perf_counter() < end:
                turn.run(1)
            start = time.perf_counter()
            turn.run(turn.repeats)
            taken = (time.perf_counter() - start) / turn.repeats
            if not warming:
                seconds.setdefault(turn.kind, {}).setdefault(turn.name, []).append(taken)
            time.sleep(turn.rest)
    return seconds


def _with_ceilings(record: Record, half: Half, config: Config, products: float, bandwidth: float) -> Record:
    """A record with what its step makes of what the machine can multiply and move."""
    flops, moved = costs.step_flops(config), costs.step_bytes(config)
    step = statistics.median(record.rounds.step_seconds)
    return replace(
        record,
        model_flops=flops,
        framework_flops=None if config.network.classes else load_microbenchmarks(half).counted_flops(config),
        model_bytes=moved,
        ceilings=Ceilings(flops_per_second=flops / products, bytes_per_second=bandwidth),
        of_product_ceiling=products / step,
        of_streaming_ceiling=moved / step / bandwidth,
    )


def _epochs(half: Half, config: Config, case: Case, steps: int, rounds: int) -> Record:
    """Whole epochs, their random numbers and the reading back of their losses included."""
    images, labels = _placed(half, config, steps * case.batch_size)
    state, program, seconds = _state(half, config, case.ensemble), None, []
    beside, seeds = half.platform_of(half.device_for(config)) != "cpu", half.seed_configs(state) or [config]
    at_once = max(1, epochs_at_once(seeds, len(images), beside))  # whose numbers are drawn together, and timed so
    last = 1 + rounds * at_once
    own = [replace(seed, training=replace(seed.training, epochs=last)) for seed in seeds]
    ahead, energy = Ahead(own, len(images), beside), machine.joules()
    for epoch in range(last):
        start = time.perf_counter()
        draws = half.state_draws(state, epoch, len(images), ahead.of(epoch) if epoch else (None,))
        waited = time.perf_counter()
        program = program or half.compile_epoch(state, images, draws, *labels)
        compiled = time.perf_counter() - waited
        state, terms = program(state, images, draws, *labels)
        map_arrays(half.to_numpy, terms)
        seconds.append(time.perf_counter() - start - compiled)
        if epoch == 0:
            energy = machine.joules()
    means = [statistics.fmean(seconds[first : first + at_once]) for first in range(1, last, at_once)]
    used = {name: joules - energy[name] for name, joules in machine.joules().items() if name in energy}
    trained = (last - 1) * len(images) * case.ensemble
    each = {name: joules / trained for name, joules in used.items() if joules > 0}
    return replace(of_epochs(case, means, steps), joules_per_image=each or None)


def _test_loss(half: Half, config: Config, case: Case, imported: float) -> Record:
    """Test loss after every epoch against the seconds of training so far, the start included."""
    dataset = datasets.load(case.dataset, data_dir=case.data_dir)
    config = dataclasses.replace(config, image_shape=dataset.image_shape)
    start = time.perf_counter()
    images, state, program = half.place_images(dataset.train.images, config), half.create_state(config), None
    beside = half.platform_of(half.device_for(config)) != "cpu"
    ahead = Ahead([config], len(images), beside)
    elapsed, curve = imported + time.perf_counter() - start, []
    for epoch in range(case.epochs):
        start = time.perf_counter()
        draws = half.state_draws(state, epoch, len(images), ahead.of(epoch))
        program = program or half.compile_epoch(state, images, draws)
        state, terms = program(state, images, draws)
        half.to_numpy(terms.total)
        elapsed += time.perf_counter() - start
        curve.append([elapsed, float(half.evaluate(state.model, dataset.test.images, config).total.mean())])
    return Record(case, test_loss_by_seconds=curve, test_loss_nats=curve[-1][1])
