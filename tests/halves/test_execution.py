"""How an epoch is run does not change what comes out; seeds in one program are what each is by itself."""

import contextlib
import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.configs import own_fields, small_config
from tests.conftest import COMMON, HALVES, term_rows
from vae_common.config import Config, DataConfig, NetworkConfig, TrainingConfig
from vae_common.conformance.engine.checks import difference
from vae_common.errors import InputError
from vae_common.runs import checkpoints, trainer
from vae_common.runs.epoch_records import NonFiniteLoss

MODES = [("jax", "auto"), ("jax", "eager"), ("torch", "eager"), ("torch", "compile"), ("torch", "graph")]
SEEDS = (3, 5, 2**40)


@pytest.fixture
def uncaptured(monkeypatch):
    """CUDA's graphs without CUDA: what would be captured is warmed up as often, and run at every replay."""
    half = HALVES["torch"]

    def capture(step):
        for _ in range(3):
            step()
        return step

    monkeypatch.setattr(half.graphs, "capture", capture)
    for module in (half.device, half.state, half.step, half.batches, half.models):
        monkeypatch.setattr(module, "device_for", lambda config: half.select_device("cpu"))
    monkeypatch.setattr(half.optimizers, "execution_for", lambda config: "eager")  # Adam's capturable is for CUDA


def with_training(config: Config, **changes) -> Config:
    return replace(config, training=replace(config.training, **changes))


def two_epochs(half, state, small):
    """A state's arrays after two epochs of one program, and every step's terms."""
    images, program, terms = half.place_images(small.train.images, state.config), None, []
    for epoch in range(2):
        draws = half.state_draws(state, epoch, len(images))
        program = program or half.compile_epoch(state, images, draws)
        state, means = program(state, images, draws)
        terms.append(np.moveaxis(term_rows(means), 0, -1))
    return state, np.concatenate(terms)


@pytest.mark.parametrize("model", COMMON)
@pytest.mark.parametrize(("framework", "execution"), [*MODES, ("torch", "compiled graph")])
@pytest.mark.parametrize(
    ("precision", "binarization"), [("float64", "dynamic"), ("float64", "none"), ("float32", "dynamic")]
)
def test_an_execution_changes_no_result(
    small, uncaptured, monkeypatch, framework, execution, model, precision, binarization
):
    """Against `train_step` repeated: float64 to rounding, float32 to T5's tolerance over ten steps."""
    if execution.startswith("compile") and (model, binarization) != ("vae", "dynamic"):
        pytest.skip("each takes a compilation; one is enough")
    if model != "vae" and (precision, binarization) != ("float64", "dynamic"):
        pytest.skip("what a batch is made of is no model's business; one is enough")
    if model == "ladder_vae":
        pytest.skip("its program takes long to compile; whole epochs of it: tests/conformance/test_tiers.py")
    half = HALVES[framework]
    config = small_config(model, data=DataConfig(binarization=binarization))
    config = with_training(config, execution=execution.removesuffix("d graph"), precision=precision)
    with monkeypatch.context() as patch:
        if execution == "compiled graph":  # what compile is on CUDA
            for module in (half.execution, half.optimizers):
                patch.setattr(module, "execution_for", lambda config: execution)
        state, terms = two_epochs(half, half.create_state(config), small)
    by_hand, images = half.create_state(config), half.place_images(small.train.images, config)
    expected = []
    for epoch in range(2):
        draws = half.epoch_draws(config, epoch, len(images))
        for step in range(len(draws.order)):
            with half.precision(precision):
                thresholds = None if draws.thresholds is None else draws.thresholds[step]
                batch = half.prepare_images(images[draws.order[step]], thresholds, draws.noise.dtype)
                noise = draws.noise[step]
            by_hand, means = half.train_step(by_hand, batch, noise)
            expected.append(term_rows(means))
    exact = precision == "float64"
    np.testing.assert_allclose(terms, np.array(expected), rtol=1e-12 if exact else 1e-4)
    arrays = half.state_to_arrays(by_hand)
    if exact:
        for name, array in half.state_to_arrays(state).items():
            assert difference(array, arrays[name]) < 1e-11, name
    assert state.step == by_hand.step == 20


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize(("framework", "execution"), MODES)
def test_seeds_in_one_program(small, uncaptured, framework, execution, start):
    """Each is its own single run to 1e-12, from the start and from a trained state."""
    half = HALVES[framework]
    config = with_training(small_config(data=DataConfig(binarization="dynamic")), execution=execution)
    states = [half.create_state(replace(config, seed=seed)) for seed in SEEDS]
    for _ in range(start):
        states = [two_epochs(half, state, small)[0] for state in states]
    stacked, terms = two_epochs(half, half.stack_states(states), small)
    assert stacked.seeds == SEEDS
    for place, (state, member) in enumerate(zip(states, half.unstack_states(stacked))):
        state, expected = two_epochs(half, state, small)
        np.testing.assert_allclose(terms[:, place], expected, rtol=1e-12)
        assert member.config == state.config
        arrays = half.state_to_arrays(state)
        for name, array in half.state_to_arrays(member).items():
            assert difference(array, arrays[name]) < 1e-11, name


def test_fit_takes_stacked_states(half, small):
    records = []
    states = half.stack_states([half.create_state(replace(small_config(), seed=seed)) for seed in SEEDS])
    half.fit(states, small, on_epoch=lambda state, record: records.append((state.config.seed, record)))
    assert [seed for seed, _ in records] == [*SEEDS, *SEEDS]
    alone = []
    half.fit(half.create_state(replace(small_config(), seed=5)), small, on_epoch=lambda _, record: alone.append(record))
    for a, b in zip([record for seed, record in records if seed == 5], alone):
        for split in ("train", "test"):
            assert a[split] == pytest.approx(b[split], rel=1e-12)


def test_one_seed_that_diverges_names_itself(half, small):
    config = with_training(small_config(dtype="float32"), learning_rate=1e18)
    states = half.stack_states([half.create_state(replace(config, seed=seed)) for seed in SEEDS])
    with pytest.raises(NonFiniteLoss, match=r"of seed \d+ became infinite or NaN in epoch 1") as error:
        half.fit(states, small)
    assert error.value.state.seeds == SEEDS


def test_a_seed_that_diverges_later_leaves_runs_that_go_on(half, small, tmp_path, monkeypatch):
    """The second seed, in the third epoch: every folder holds the second one, and can be resumed."""
    config = with_training(small_config(), epochs=4)
    configs = [replace(config, seed=seed) for seed in SEEDS]
    folders = [tmp_path / str(seed) for seed in SEEDS]
    original = half.fitting.evaluation_of

    def evaluation_of(*arguments, **keywords):
        evaluation = original(*arguments, **keywords)

        def evaluated(model):
            terms = evaluation(model)
            return terms._replace(total=terms.total * np.nan) if next(calls) == 3 * 2 + 1 else terms

        return evaluated

    calls = iter(range(100))
    monkeypatch.setattr(half.fitting, "evaluation_of", evaluation_of)
    for folder in folders:
        folder.mkdir()
    with pytest.raises(NonFiniteLoss, match="of seed 5 became infinite or NaN in epoch 3"):
        trainer.train_seeds(half, configs, small, folders)
    monkeypatch.setattr(half.fitting, "evaluation_of", original)
    for folder, config in zip(folders, configs):
        point = checkpoints.read(folder / "checkpoint.safetensors")
        assert point.epoch == len(point.history) == len((folder / "metrics.jsonl").read_text().splitlines()) == 2
        assert trainer.train(half, config, small, folder, resume=point)["epochs"] == 4


def test_states_that_do_not_stack(half, small):
    config = small_config()
    one = half.create_state(config)
    for others, said in (
        ([], "received seeds []"),
        ([one, one], r"received seeds \[0, 0\]"),
        ([one, half.create_state(with_training(replace(config, seed=1), learning_rate=0.1))], "differ in more than"),
        ([one, half.fit(half.create_state(replace(config, seed=1)), small)], r"after \[0, 20\] steps"),
    ):
        with pytest.raises(InputError, match=said.replace("[]", r"\[\]")):
            half.stack_states(others)


@pytest.mark.parametrize("model", COMMON)
def test_bfloat16_follows_float32(half, model, digits):
    """Parameters stay float32; losses differ, and little."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        network = NetworkConfig(**own_fields(model, {"hidden": (64,), "ladder_layers": 2}))
        config = Config(model, network=network, training=TrainingConfig(precision=precision, epochs=2))
        state = half.fit(half.create_state(config), digits)
        assert half.parameter_dtype(state.model) == "float32"
        losses[precision] = half.evaluate(state.model, digits.test.images, config).total.mean()
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)


def test_bfloat16_is_the_same_in_both_halves(small):
    """One forward pass from equal weights: to a few of bfloat16's own steps, 2^-8."""
    config = with_training(small_config(dtype="float32"), precision="bfloat16")
    found = [half.encode(half.create_model(config), small.test.images).mean for half in HALVES.values()]
    assert difference(*found) < 3 * 2**-8
    exact = HALVES["jax"].encode(HALVES["jax"].create_model(small_config(dtype="float32")), small.test.images).mean
    assert difference(found[0], exact) > 1e-4


def test_what_streams_by_is_not_captured(monkeypatch):
    """A graph is of one set of images: of the next chunk it would be refused."""
    half, config = HALVES["torch"], small_config(data=DataConfig(stream=True))
    monkeypatch.setattr(half.device, "device_for", lambda config: SimpleNamespace(type="cuda"))
    for asked, captured, instead in (("auto", "graph", "eager"), ("compile", "compiled graph", "compile")):
        assert half.execution_for(with_training(config, execution=asked)) == instead
        assert half.execution_for(with_training(small_config(), execution=asked)) == captured


def test_a_captured_epoch_is_for_its_own_state(uncaptured, small):
    half = HALVES["torch"]
    config = with_training(small_config(), execution="graph")
    state, images = half.create_state(config), half.place_images(small.train.images, config)
    draws = half.epoch_draws(config, 0, len(images))
    program = half.compile_epoch(state, images, draws)
    with pytest.raises(ValueError, match="belongs to one state"):
        program(half.create_state(config), images, draws)


def test_what_a_graph_reads_is_held_as_long_as_its_replay(monkeypatch):
    """A graph itself has addresses alone: memory that is given back, and to another, is read all the same."""
    cuda, replayed = HALVES["torch"].graphs.torch.cuda, []

    class Stream:
        def wait_stream(self, other):
            pass

    class Graph:
        def replay(self):
            replayed.append(len(runs))

    for name, value in (("Stream", Stream), ("current_stream", Stream), ("CUDAGraph", Graph)):
        monkeypatch.setattr(cuda, name, value)
    monkeypatch.setattr(cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(cuda, "graph", lambda graph, **how: contextlib.nullcontext())
    read, runs = np.zeros(3), []
    alive = weakref.ref(read)
    again = HALVES["torch"].graphs.capture(lambda read=read: runs.append(read.sum()))
    del read
    gc.collect()
    assert alive() is not None
    assert len(runs) == 4  # warmed up, and captured
    again()
    assert replayed == [4]
    assert gc.isenabled()
