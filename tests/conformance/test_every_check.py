"""The engine compares everything that it should, and each of its checks can fail.

A table of what has to be compared is built here from the config alone; then every result of one half is
moved by a little more than its tolerance, and exactly the checks on that quantity have to fail.
"""

import typing
from itertools import combinations

import numpy as np
import pytest

from tests.conformance.suite import images_for, tiny_config
from tests.conftest import HALVES
from vae_common import reference
from vae_common.config.parts import Activation
from vae_common.conformance import checks
from vae_common.conformance.lockstep import tier_checks
from vae_common.conformance.oracle import oracle_for
from vae_common.conformance.states import injected_states, training_data
from vae_common.conformance.tolerances import TOLERANCES, lockstep_tolerances
from vae_common.runs.checkpoints import FIRST, SECOND, STEP

CONFIG = tiny_config()
NAMES = list(reference.shapes(CONFIG))
PAIRS = [f"{a} against {b}" for a, b in combinations([*HALVES, "reference"], 2)]
ACTIVATIONS = [f"activation {name}" for name in typing.get_args(Activation)]
TERMS, TRAINED = ["total", "reconstruction", "kl"], ["total", "reconstruction", "kl", "objective"]
STANDARD = "a standard-normal prior of what is decoded"
TENSORS = ["logits", "latents", "mean", "log_std", "log prior"]
MOMENTS = [prefix + name for name in NAMES for prefix in (FIRST, SECOND)]
INFERENCE = ["encoded mean", "encoded log_std", "decoded", "reconstructed", "sampled", "interpolated", *TERMS]


def expected_checks() -> set[tuple[str, str, str]]:
    """(tier, quantity, where) of every check on CONFIG."""
    found = set()
    for half in HALVES:
        against = f"{half} against reference"
        found |= {("T0", name, f"{kind}: {against}") for name in NAMES for kind in ("shape", "initial")}
        found |= {("T0", "dtype", half)}
        kinds = ("order", "noise", "thresholds")
        found |= {("T0", kind, f"epoch {epoch}: {against}") for kind in kinds for epoch in (0, 1)}
        cases = [f"{term} {case}" for term in TERMS for case in range(3)]
        found |= {("T1", name, against) for name in ("images", "binarized", "pixel means", *ACTIVATIONS, *cases)}
        found |= {("T2", name, f"inference: {against}") for name in INFERENCE}
        declared = f"as it is declared: {half}"
        found |= {("T2", name, declared) for name in ("codes", "a KL that is exact", STANDARD)}
        found |= {("T2", "layers of [(3,)]", f"as it is declared, [(3,)]: {half}")}
        moved = f"its gradient is not zero at every state: {half}"
        found |= {("T3", f"{name} is used", moved) for name in NAMES}
        found |= {("T5", name, f"6 steps by train_epoch: {against}") for name in (*TRAINED, *NAMES)}
    found |= {("T5", name, "lockstep, 6 steps") for name in (*TRAINED, "parameters")}
    for label in ("cold", "warm", "extreme"):
        for pair in PAIRS:
            where = f"{label}: {pair}"
            found |= {("T0", name, f"injected, {where}") for name in (*NAMES, *MOMENTS, STEP)}
            evaluated = [f"evaluated {term}" for term in TERMS]
            found |= {("T2", name, where) for name in (*TRAINED, *TENSORS, *evaluated)}
            found |= {("T3", name, where) for name in NAMES}
            if label == "extreme":
                continue
            for t in (1, 2, 10, 1000, 100_000):
                found |= {("T4a", name, f"t={t}, {where}") for name in (*NAMES, *MOMENTS, STEP)}
            found |= {("T4b", name, where) for name in (*NAMES, *TRAINED)}
    return found


def test_nothing_is_left_out():
    made = [(check.tier, check.quantity, check.where) for check in tier_checks(HALVES, CONFIG, images_for(CONFIG), 6)]
    assert set(made) == expected_checks()
    assert len(made) == len(set(made))


def test_tolerances_are_those_that_were_measured():
    """CONFORMANCE's table; a tolerance that is loosened has to be loosened here, too."""
    assert TOLERANCES["float64"] == {
        "operation": 1e-13, "loss": 1e-12, "kl": 1e-12, "tensor": 1e-12, "gradient": 1e-12, "adam": 1e-11,
        "step": 1e-8, "lockstep_loss": 1e-11, "lockstep_kl": 1e-10, "lockstep_parameters": 1e-7,
        "epoch_update": 3e-10,
    }  # fmt: skip
    assert TOLERANCES["float32"] == {
        "operation": 5e-6, "loss": 2e-6, "kl": 5e-6, "tensor": 1e-5, "gradient": 2e-5, "adam": 2e-5, "step": 8e-4,
    }  # fmt: skip
    limits = lockstep_tolerances(tiny_config(dtype="float32"), 101)
    assert (limits["total"][[0, 9, 10, 99]] == [1e-4, 1e-4, 3e-3, 3e-3]).all()
    assert (limits["kl"][[0, 9, 10, 99]] == [5e-4, 5e-4, 3e-2, 3e-2]).all()
    exact = lockstep_tolerances(CONFIG, 300)
    assert {name: float(limit.max()) for name, limit in exact.items()} == {
        "total": 1e-11, "reconstruction": 1e-11, "kl": 1e-10, "objective": 1e-11, "parameters": 1e-7,
    }  # fmt: skip


class Moved:
    """A half one of whose functions has one of its results moved."""

    def __init__(self, half, name, move):
        self.half, self.moved = half, {name: lambda *args, **options: move(getattr(half, name)(*args, **options))}

    def __getattr__(self, name):
        return self.__dict__["moved"].get(name) or getattr(self.__dict__["half"], name)


def moves(half):
    """(function, how its result is moved, the checks that have to fail) by the quantity's name."""
    limits = TOLERANCES["float64"]

    def up(array, by):
        """By 3 tolerances of the array's largest value, at one place only."""
        array = np.array(array, copy=True)
        place = np.unravel_index(np.argmax(np.abs(array)), array.shape)
        array[place] *= 1 + 3 * by
        return array

    def of_tuple(field, by):
        return lambda result: result._replace(**{field: up(getattr(result, field), by)})

    def of_layer(change):
        return lambda result: result._replace(layers=(change(result.layers[0]),))

    def of_posterior(field, by):
        return of_layer(lambda layer: layer._replace(posterior=of_tuple(field, by)(layer.posterior)))

    yield "forward", of_tuple("logits", limits["tensor"]), "T2", "logits"
    yield "forward", of_layer(of_tuple("latents", limits["tensor"])), "T2", "latents"
    yield "forward", of_layer(of_tuple("prior", limits["tensor"])), "T2", "log prior"
    for name in ("mean", "log_std"):
        yield "forward", of_posterior(name, limits["tensor"]), "T2", name
    for name in TRAINED:
        if name in TERMS:
            yield "evaluate", of_tuple(name, limits["tensor"]), "T2", f"evaluated {name}"
        by = limits["kl" if name == "kl" else "loss"]

        def of_terms(result, name=name, by=by):
            moved = half.to_numpy(getattr(result[1], name)) * (1 + 3 * by)
            return result[0], result[1]._replace(**{name: half.to_device(moved, half.select_device("cpu"))})

        yield "gradients", of_terms, "T2", name
        yield "train_step", of_terms, "T4b", name
    for name in NAMES:

        def of_gradient(result, name=name):
            return result[0] | {name: up(result[0][name], limits["gradient"])}, result[1]

        yield "gradients", of_gradient, "T3", name
    for name in (*NAMES, *MOMENTS):

        def of_state(arrays, name=name):
            return arrays | {name: np.nextafter(arrays[name], np.inf)}

        yield "state_to_arrays", of_state, "T0", name


@pytest.mark.parametrize("framework", HALVES)
def test_each_check_can_fail(framework):
    """By three tolerances, in one place, from the warm state; nothing else fails in its tier."""
    half = HALVES[framework]
    *_, warm, _ = injected_states(oracle_for(HALVES, CONFIG), CONFIG, training_data(CONFIG, images_for(CONFIG)))
    for function, move, tier, name in moves(half):
        halves = HALVES | {framework: Moved(half, function, move)}
        injected = warm._replace(updates=tier == "T4b")
        failed = [check for check in checks.state_checks(halves, CONFIG, injected) if not check.passed]
        said = {(check.quantity, check.where) for check in failed if check.tier == tier}
        kind = "injected, warm" if tier == "T0" else "warm"
        assert said == {(name, f"{kind}: {pair}") for pair in PAIRS if framework in pair}, (function, name)
