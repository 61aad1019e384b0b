"""Images that stay on the disk: the same training as of the same images in memory, chunk by chunk."""

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from tests.configs import small_config
from tests.conftest import HALVES, ROOT, process, run_here, script
from tests.halves.test_distributed import processes
from vae_common import randomness
from vae_common.config import DataConfig, NetworkConfig
from vae_common.conformance.engine.checks import difference
from vae_common.contracts import Terms
from vae_common.data import datasets, seen, streams
from vae_common.errors import InputError
from vae_common.runs import checkpoints
from vae_common.runs.folder import Run

pytest.importorskip("grain", reason="grain is not installed")
FLAGS = ("--stream", "--randomness", "counter", "--hidden", "16", "--precision", "float64", "--batch-size", "32")


@pytest.fixture
def folder(tmp_path):
    """Digits as a folder of .npy files."""
    digits = datasets.load("digits")
    place = tmp_path / "digits-npy"
    place.mkdir()
    for name, split in (("train", digits.train), ("test", digits.test)):
        np.save(place / f"{name}_images.npy", split.images)
        np.save(place / f"{name}_labels.npy", split.labels)
    return place


def counted(config, **training):
    """A config of counters, of a stream."""
    training = replace(config.training, randomness="counter", **training)
    return replace(config, training=training, data=replace(config.data, stream=True))


def held(config):
    """The same of images in memory."""
    return replace(config, data=replace(config.data, stream=False))


@pytest.mark.parametrize("binarization", ["none", "dynamic", "threshold"])
@pytest.mark.parametrize("classes", [0, 10])
def test_a_stream_is_trained_on_as_the_same_images_in_memory(half, folder, monkeypatch, binarization, classes):
    """Bit for bit, in chunks that do not divide an epoch; the evaluation is of the same images, too."""
    config = counted(small_config(data=DataConfig(binarization=binarization)), batch_size=32, epochs=2)
    config = replace(config, image_shape=(28, 28, 1), network=replace(config.network, classes=classes))
    monkeypatch.setattr(streams, "CHUNK", 9 * 32 * 784)  # 46 steps an epoch: five chunks and one of a single step
    found, records = [], []
    for stream in (False, True):
        dataset = datasets.load(folder, stream=stream)
        state, own = half.create_state(config if stream else held(config)), []
        state = half.fit(state, dataset, on_epoch=lambda _, record, to=own: to.append(record))
        found.append(half.state_to_arrays(state))
        records.append([{name: record[name] for name in ("train", "test", "step")} for record in own])
    for name, array in found[0].items():
        assert difference(array, found[1][name]) < 1e-14, name
    for one, other in zip(*records):
        assert one["step"] == other["step"]
        for part in ("train", "test"):
            np.testing.assert_allclose(list(one[part].values()), list(other[part].values()), rtol=1e-13)


def test_any_chunk_is_read_without_those_before_it(folder, monkeypatch):
    """The order is a function of seed, epoch and place; all chunks of an epoch hold each image once."""
    monkeypatch.setattr(streams, "CHUNK", 4 * 32 * 784)
    dataset = datasets.load(folder, stream=True)
    config = counted(small_config(), batch_size=32)
    every = list(streams.chunks(dataset.train.images, dataset.train.labels, config, 1))
    assert [chunk.first for chunk in every] == list(range(0, 46, 4))
    for first in (0, 3, 45):
        *_, found = streams.chunks(dataset.train.images, dataset.train.labels, config, 1, first, slice(2, 30))
        last = streams.last_chunk(dataset.train.images, dataset.train.labels, config, 1, first, slice(2, 30))
        assert (last.first, last.steps) == (found.first, found.steps)
        assert (last.images.shape, last.labels.shape) == (found.images.shape, found.labels.shape)
    alone = streams._Chunks(dataset.train.images, dataset.train.labels, config, 1)[5]
    np.testing.assert_array_equal(alone.images, every[5].images)
    images = np.concatenate([chunk.images for chunk in every])
    assert len({image.tobytes() for image in images}) == len(images) == 46 * 32
    other = next(streams.chunks(dataset.train.images, dataset.train.labels, config, 2))
    assert (other.images != every[0].images).any()


@pytest.mark.parametrize("most", [1 << 20, 30000, 700])
@pytest.mark.parametrize("side", [4, 40])  # of an image 16 bytes and 4,800
def test_rows_come_to_their_places_however_much_the_system_reads_at_once(tmp_path, monkeypatch, side, most):
    """In any order, some of them often, and where it stops within an image, or behind a few."""
    images = np.random.default_rng(1).integers(0, 256, (500, side, side, 3 if side > 4 else 1), np.uint8)
    np.save(tmp_path / "images.npy", images)
    stream, read, asked = streams.Rows(tmp_path / "images.npy"), os.preadv, []

    def short(file, memory, place):
        left, given = most, []
        for piece in memory:
            given += [piece[:left]] if left else []
            left -= len(piece[:left])
        asked.append(len(memory))
        return read(file, given, place)

    monkeypatch.setattr(os, "preadv", short)
    monkeypatch.setattr(streams, "AT_ONCE", 7)
    rows = np.random.default_rng(0).permutation(np.concatenate([np.arange(300), np.arange(40), [490, 492]]))
    for few in (rows, rows[:7], rows[:0], np.arange(100, 130)):
        np.testing.assert_array_equal(stream[few], images[few])
    assert max(asked) == (1 if side == 4 else 7)


def test_images_are_read_into_what_holds_them(folder):
    stream, rows = datasets.load(folder, stream=True).train.images, np.arange(3)
    for found in (
        np.empty((3, 28, 28, 2), np.uint8)[..., :1],
        np.empty((2, 28, 28, 1), np.uint8),
        np.empty((3, 28, 28, 1)),
    ):
        with pytest.raises(InputError, match="found: received"):
            stream.take(rows, found)


def test_memory_is_used_again_once_nobody_holds_it(monkeypatch):
    reused, empty, made = streams.Reused(), np.empty, []
    monkeypatch.setattr(np, "empty", lambda size, dtype: (made.append(size), empty(size, dtype))[1])
    first, second = reused.array((3, 5)), reused.array((3, 5))
    own = {array.ctypes.data for array in (first, second)}
    assert len(own) == 2 and all(place % streams.ALIGNED == 0 for place in own)
    part = first[1:]
    del first, second
    again, other = reused.array((2, 7)), reused.array((3, 5))
    assert again.ctypes.data in own and other.ctypes.data not in own  # a part of the first is held
    del part
    assert reused.array((15,)).ctypes.data in own - {again.ctypes.data}
    assert len([size for size in made if size]) == 3
    assert reused.array((1000,)).shape == (1000,)


@pytest.mark.parametrize("chunk", [9, 12, 100])  # of 46 steps: a last chunk of one step, of ten, and the only one
def test_every_program_is_compiled_before_the_clock_starts(half, folder, monkeypatch, chunk):
    monkeypatch.setattr(streams, "CHUNK", chunk * 32 * 784)
    fitting, found = importlib.import_module(f"{half.__name__}.fitting"), []

    def watched(programs, *others, own=fitting._run):
        found.append(set(programs))
        done = own(programs, *others)
        found.append(set(programs))
        return done

    monkeypatch.setattr(fitting, "_run", watched)
    config = replace(counted(small_config(), batch_size=32, epochs=1), image_shape=(28, 28, 1))
    half.fit(half.create_state(config), datasets.load(folder, stream=True))
    before, after = found
    assert before == after == {(steps, 32) for steps in {min(chunk, 46), 46 % chunk}}


def test_terms_of_an_epochs_earlier_parts_are_not_kept_as_they_are(half, folder, monkeypatch):
    """Each part's would lie between what later steps want as one piece: a GB more was held after 10,000 steps."""
    monkeypatch.setattr(streams, "CHUNK", 4 * 32 * 784)
    fitting, given, alive = importlib.import_module(f"{half.__name__}.fitting"), [], []

    def watched(*arguments, own=fitting._compiled):
        def program(*of, program=own(*arguments)):
            state, terms = program(*of)
            given.append(weakref.ref(terms.total))
            return state, terms

        return program

    monkeypatch.setattr(fitting, "_compiled", watched)
    config = replace(counted(small_config(), batch_size=32, epochs=1), image_shape=(28, 28, 1))
    dataset, state = datasets.load(folder, stream=True), half.create_state(config)
    half.fit(state, dataset, on_part=lambda *_: alive.append(sum(term() is not None for term in given)))
    assert (alive, len(given)) == ([1] * 12, 12)


@pytest.mark.parametrize("stream", [True, False])
def test_a_state_that_has_taken_steps_by_itself_is_given_whole_epochs(half, folder, stream):
    config = replace(counted(small_config(), batch_size=32, epochs=2), image_shape=(28, 28, 1))
    state, epochs = half.create_state(config if stream else held(config)), []
    state, _ = half.train_step(state, np.zeros((32, 28, 28, 1)), np.zeros((32, *config.noise_shape)))
    dataset = datasets.load(folder, stream=stream)
    state = half.fit(state, dataset, on_epoch=lambda _, record: epochs.append(record["step"]))
    assert (state.step, epochs) == (1 + 2 * 46, [46, 2 * 46])


def test_what_a_device_computes_on_is_not_used_again(half, folder, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 4 * 32 * 784)
    dataset, config = datasets.load(folder, stream=True), counted(small_config(), batch_size=32)
    source, places, held = streams._Chunks(dataset.train.images, dataset.train.labels, config, 0), [], []
    for place in range(6):
        chunk = source[place]
        places.append(chunk.images.ctypes.data)
        held.append((half.batches.place_chunk(chunk, config, 0)[0], chunk.images.copy()))
        del chunk
    for placed, images in held:
        np.testing.assert_array_equal(half.to_numpy(placed), images)
    if half.platform_of(half.device_for(config)) == "cpu":
        assert len(set(places)) == 6
        given, shape = source._memory._free, (4 * 32, 28, 28, 1)
        del held[2]
        half.synchronize(half.batches.place_chunk(streams.Chunk(0, 4, np.zeros(shape, np.uint8), None), config, 0))
        assert [memory.ctypes.data for memory in given] == [places[2]]  # JAX lets go of it at its next call
    chunk = source[0]._replace(images=np.zeros((4 * 32, 28, 28, 1), np.uint8))
    chunk.images.flags.writeable = False
    assert not half.to_numpy(half.batches.place_chunk(chunk, config, 0)[0]).any()


def test_both_halves_are_given_the_same_batches(folder, monkeypatch):
    """The hash of every step's images is that of the images in memory, in the order of the counters."""
    monkeypatch.setattr(streams, "CHUNK", 7 * 32 * 784)
    config = counted(small_config(image_shape=(28, 28, 1)), batch_size=32, epochs=2)
    dataset, given = datasets.load(folder, stream=True), {}
    for name, half in HALVES.items():
        place, hashes = half.fitting.place_chunk, given.setdefault(name, [])

        def hashed(chunk, config, epoch, half=half, place=place, hashes=hashes):
            placed = place(chunk, config, epoch)
            batches = half.to_numpy(placed[0])[half.to_numpy(placed[1].order)]
            hashes += [hashlib.sha256(batch.tobytes()).hexdigest() for batch in batches if batch.any()]
            return placed  # what is none but zeros tells a program its shapes

        monkeypatch.setattr(half.fitting, "place_chunk", hashed)
        half.fit(half.create_state(config), dataset)
    images = datasets.load(folder).train.images
    orders = [randomness.counted_order(config, epoch, np.arange(46 * 32), 1500) for epoch in range(2)]
    batches = images[np.concatenate(orders)].reshape(-1, 32, 28, 28, 1)
    assert given["jax"] == given["torch"] == [hashlib.sha256(batch.tobytes()).hexdigest() for batch in batches]


def test_nothing_reads_a_stream_at_once(folder):
    dataset = datasets.load(folder, stream=True)
    images = dataset.train.images
    with pytest.raises(InputError, match="is a stream, which is not read at once"):
        np.asarray(images)
    rows = np.array([7, 3, 1400, 3])
    np.testing.assert_array_equal(images[rows], datasets.load(folder).train.images[rows])
    assert dataset.fingerprint != datasets.load(folder).fingerprint
    changed = np.load(folder / "train_images.npy")
    changed[5] ^= 1
    np.save(folder / "train_images.npy", changed)
    assert dataset.fingerprint != datasets.load(folder, stream=True).fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"randomness": "shared"}}, "randomness: received shared with a stream, expected counter"),
        ({"data": {"binarization": "static"}}, "binarization: received static with a stream"),
        ({"training": {"execution": "graph"}}, "execution: received graph with a stream"),
    ],
)
def test_what_a_stream_does_not_go_with(folder, changes, said):
    config = counted(small_config())
    for part, of in changes.items():
        config = replace(config, **{part: replace(getattr(config, part), **of)})
    with pytest.raises(InputError, match=said):
        datasets.load(folder, stream=True).require_streamable(config)


def test_what_is_no_stream(tmp_path, folder):
    with pytest.raises(InputError, match=r"stream: received digits, expected a folder that holds train_images.npy"):
        datasets.load("digits", stream=True)
    with pytest.raises(InputError, match=r"stream: received .*digits.npz, expected a folder"):
        datasets.load(tmp_path / "digits.npz", stream=True)
    with pytest.raises(InputError, match=r"stream: received .*, expected a folder"):
        datasets.load("../digitss", stream=True)
    with pytest.raises(InputError, match=r"dataset: received '?x+.*name too long"):
        datasets.load("x" * 300, stream=True)
    for bad, said in (
        (np.zeros((0, 28, 28), np.uint8), "received no images"),
        (np.zeros((4, 0, 28), np.uint8), "received no images"),
        (np.full((5, 3, 64, 64), 200, np.uint8), "channels seem to come first"),
        (np.ones((5, 28, 28), np.uint8), "largest value is 1"),
    ):
        np.save(folder / "test_images.npy", bad)
        with pytest.raises(InputError, match=said):
            datasets.load(folder, stream=True)
    with pytest.raises(InputError, match="value_range"):
        datasets.load(folder, stream=True, value_range=(0, 100))
    np.save(folder / "train_images.npy", np.zeros((4, 28, 28), np.float32))
    with pytest.raises(InputError, match=r"holds float32 \(4, 28, 28\), expected uint8"):
        datasets.load(folder, stream=True)
    (folder / "train_images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"train_images.npy"):
        datasets.load(folder, stream=True)


def test_blocks_are_the_same_training_too(half, folder, monkeypatch):
    """The order in blocks is one order, in memory and streamed, in chunks that end within a window."""
    config = counted(small_config(image_shape=(28, 28, 1)), batch_size=32, epochs=2)
    config = replace(config, data=replace(config.data, block=4))
    monkeypatch.setattr(streams, "CHUNK", 9 * 32 * 784)
    found = []
    for stream in (False, True):
        dataset = datasets.load(folder, stream=stream)
        state = half.create_state(config if stream else held(config))
        found.append(half.state_to_arrays(half.fit(state, dataset)))
    for name, array in found[0].items():
        assert difference(array, found[1][name]) < 1e-14, name


@pytest.fixture
def pictures(tmp_path):
    """Digits as PNG files in folders of their classes."""
    from PIL import Image

    digits = datasets.load("digits")
    for name, split, count in (("train", digits.train, 400), ("test", digits.test, 150)):
        for number, (image, label) in enumerate(zip(split.images[:count], split.labels[:count])):
            place = tmp_path / "pictures" / name / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(place / f"{number:04}.png")
    return tmp_path / "pictures"


def test_no_rows_of_a_stream_are_no_images(folder, pictures):
    """What falls to a process where a few images are shared by many."""
    for place in (folder, pictures):
        images = datasets.load(place, stream=True).train.images
        for rows in (slice(3, 3), [], np.array([], int)):
            assert images[rows].shape == (0, *images.shape[1:])


def test_a_whole_set_is_refused_where_several_devices_share_a_stream(half, monkeypatch):
    config = counted(small_config(image_shape=(28, 28, 1)))
    images = datasets.load("digits").train.images[:32]
    assert len(half.place_images(images, config)) == 32
    monkeypatch.setattr(half.batches, "devices", lambda: 2)
    with pytest.raises(InputError, match="received 'a whole set', expected parts of them, from place_chunk"):
        half.place_images(images, config)


def test_a_config_that_says_another_kind_of_images(half, folder):
    config = counted(small_config(image_shape=(28, 28, 1)))
    for stream, own in ((True, held(config)), (False, config)):
        with pytest.raises(InputError, match=rf"config.data.stream: received {not stream} for .*, expected {stream}"):
            half.fit(half.create_state(own), datasets.load(folder, stream=stream))


def test_image_files_are_trained_on_as_in_memory(half, pictures, tmp_path):
    """Decoded where they are needed; a part of them held out."""
    data = DataConfig(dataset=str(pictures), data_dir=str(tmp_path / "data"), image_size=20, validation_size=50)
    config = counted(small_config(image_shape=(20, 20, 1)), batch_size=32)
    found = []
    for stream in (False, True):
        dataset = datasets.load_for(replace(data, stream=stream))
        assert [len(split) for split in dataset.splits.values()] == [350, 50, 150]
        assert dataset.class_names == tuple("0123456789")
        records = []
        state = half.create_state(config if stream else held(config))
        state = half.fit(state, dataset, on_epoch=lambda _, record, to=records: to.append(record))
        found.append((half.state_to_arrays(state), records[-1]["validation"]))
    for name, array in found[0][0].items():
        assert difference(array, found[1][0][name]) < 1e-14, name
    np.testing.assert_allclose(list(found[0][1].values()), list(found[1][1].values()), rtol=1e-13)


@pytest.mark.parametrize("binarization", ["none", "threshold", "dynamic"])
def test_an_evaluation_reads_every_image_of_a_stream_once(half, folder, monkeypatch, binarization):
    """Part by part, with the noise of images in memory; the static draw alone is another."""
    monkeypatch.setattr(seen, "EVALUATED", 64)
    monkeypatch.setattr(streams, "SHOWN", 100)
    network = NetworkConfig(hidden=(8,), latent_dim=3, classes=10)
    config = counted(small_config(image_shape=(28, 28, 1), data=DataConfig(binarization=binarization), network=network))
    model = half.create_model(config)
    found = {}
    for stream in (False, True):
        own = seen.evaluated_by(config, datasets.load(folder, stream=stream), "test")
        found[stream] = half.evaluate(model, own.images, config, own.labels).total
    assert found[True].shape == (297,)
    shown = seen.seen_by(config, datasets.load(folder, stream=True), "test")
    assert half.encode(model, shown.images, shown.labels).mean.shape == (100, 3)
    if binarization == "dynamic":
        assert abs(found[True].mean() / found[False].mean() - 1) < 0.01
    else:
        np.testing.assert_allclose(found[True], found[False], rtol=1e-13)


def test_what_is_shown_of_a_stream_is_a_fixed_draw(folder, monkeypatch):
    monkeypatch.setattr(streams, "SHOWN", 100)
    shown = datasets.load(folder, stream=True).shown
    assert len(shown.test) == 100
    assert shown.train.streamed
    held = datasets.load(folder).test
    pairs = {(image.tobytes(), label) for image, label in zip(held.images, held.labels)}
    assert {(image.tobytes(), label) for image, label in zip(shown.test.images, shown.test.labels)} <= pairs
    assert shown.name == datasets.load(folder, stream=True).name


def test_a_comparison_and_a_sweep_of_a_stream(folder, tmp_path):
    """Trained, compared, held in lockstep, drawn and swept as images in memory are; with the same losses."""
    small = ("--models", "vae", "--hidden", "16", "--epochs", "1", "--precision", "float64")
    flags = (*small, "--randomness", "counter", "--check", "lockstep", "--lockstep-steps", "12")
    found = {}
    for name, more in (("stream", ("--stream",)), ("memory", ())):
        script("compare", "--dataset", str(folder), *flags, *more, "--output", name, cwd=tmp_path)
        found[name] = json.loads((tmp_path / name / "summary.json").read_text())
        assert all(claim["holds"] for claim in found[name]["claims"])
    for one, other in zip(*(of["models"]["vae"]["losses_by_seed"]["jax"] for of in found.values())):
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-12)
    assert found["stream"]["models"]["vae"]["latents_between_halves"]
    vary = ("--vary", "network.latent_dim=2,3", "--frameworks", "torch", "--epochs", "1")
    made = ("sweep", "--dataset", str(folder), "--stream", "--randomness", "counter", *vary, "--hidden", "8")
    assert script(*made, "--output", "s", cwd=tmp_path)


@pytest.mark.parametrize("framework", HALVES)
def test_killed_in_an_epoch_it_goes_on_bit_for_bit(framework, folder, tmp_path):
    """In the same half, and with figures and an evaluation at the end."""
    train = ("train", "--framework", framework, "--dataset", str(folder), *FLAGS)
    process(*train, "--epochs", "6", "--output", "whole", cwd=tmp_path)  # a process's programs, all of them
    command = [sys.executable, "-m", "vae_common.cli", *train, "--epochs", "6", "--output", "killed"]
    doomed = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    records = tmp_path / "killed" / "metrics.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (records.exists() and records.read_text().count("\n") >= 2):
        time.sleep(0.005)
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    process("train", "--resume", "killed", cwd=tmp_path)
    weights = [(tmp_path / run / "weights.safetensors").read_bytes() for run in ("whole", "killed")]
    assert weights[0] == weights[1]
    found = script("evaluate", "--run", "killed", "--samples", "0", cwd=tmp_path)
    assert found["images"] == 297
    script("plot", "--run", "killed", cwd=tmp_path)
    assert json.loads((tmp_path / "killed" / "config.json").read_text())["config"]["data"]["stream"] is True


@pytest.mark.parametrize("framework", HALVES)
def test_killed_in_an_epoch_it_goes_on_within_it(framework, folder, tmp_path, monkeypatch, refused):
    """From the batch after the last one that was saved, in either half, by as many processes as there are then."""
    monkeypatch.setattr(streams, "CHUNK", 5 * 32 * 784)
    flags = ("--dataset", str(folder), *FLAGS, "--epochs", "2")
    script("train", "--framework", framework, *flags, "--output", "whole", cwd=tmp_path)
    write, saved = checkpoints.write, []

    def killed(path, checkpoint):
        write(path, checkpoint)
        saved.append(checkpoint)
        if checkpoint.epoch == 1 and checkpoint.terms is not None and len(checkpoint.terms.total) > 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", killed)
        stopped = ("train", "--framework", framework, *flags, "--checkpoint-steps", "10", "--output", "killed")
        assert run_here(*stopped[:1], stopped[1:], tmp_path).status == 130
    assert [len(point.terms.total) for point in saved if point.terms and point.epoch == 1] == [10, 20, 30]
    point = Run(tmp_path / "killed").resume_point()
    assert len(point.terms.total) == 30
    assert point.arrays["adam.step"] == 46 + 30
    refused("train", "--resume", "killed", "--epochs", 1, cwd=tmp_path, said="but the run is in epoch 2; expected at")
    (other,) = (name for name in HALVES if name != framework)
    for name in ("same", "other", "two"):
        shutil.copytree(tmp_path / "killed", tmp_path / name)
    script("train", "--resume", "same", cwd=tmp_path)
    script("train", "--resume", "other", "--framework", other, cwd=tmp_path)
    again = ["vae_common.cli", "train", "--resume", "two", "--framework", framework]
    assert not [member.returncode for member in processes(again, 2, tmp_path) if member.wait(120)]
    runs = {n: safetensors.numpy.load_file(tmp_path / n / "weights.safetensors") for n in ("same", "other", "two")}
    records = {n: Run(tmp_path / n).checkpoint().history[-1]["train"] for n in ("whole", *runs)}
    whole = safetensors.numpy.load_file(tmp_path / "whole" / "weights.safetensors")
    for name, array in whole.items():
        np.testing.assert_array_equal(runs["same"][name], array)
        assert difference(array, runs["other"][name]) < 1e-11
        assert difference(array, runs["two"][name]) < 1e-12
    assert records["same"] == records["whole"]
    np.testing.assert_allclose(list(records["other"].values()), list(records["whole"].values()), rtol=1e-12)


def test_terms_of_another_place_are_refused(half, folder):
    config = counted(small_config(image_shape=(28, 28, 1)), batch_size=32, epochs=2)
    terms = Terms(*np.zeros((3, 7)))
    with pytest.raises(InputError, match="done: received 'terms of 7 steps', expected of the 0"):
        half.fit(half.create_state(config), datasets.load(folder, stream=True), done=terms)


def test_what_happens_to_files_while_they_are_read(folder, pictures, half):
    """A file that becomes shorter, or a picture that changes its size, is named in one line."""
    from PIL import Image

    config = counted(small_config(image_shape=(28, 28, 1)), batch_size=32)
    dataset = datasets.load(folder, stream=True)
    os.truncate(folder / "train_images.npy", 100_000)
    with pytest.raises(InputError, match="has become shorter while it was read"):
        half.fit(half.create_state(config), dataset)
    dataset = datasets.load(pictures, stream=True)
    changed = sorted((pictures / "train").rglob("*.png"))[5]
    Image.new("L", (20, 28)).save(changed)
    with pytest.raises(InputError, match=rf"{changed.name} cannot be read as an image .it is \(28, 20, 1\) now"):
        half.fit(half.create_state(config), dataset)


def test_a_dark_part_of_a_set_is_one(half, folder, monkeypatch):
    """Sets come sorted: night follows day. Only all of a set says whether it was brought to 0 to 255."""
    images = np.load(folder / "train_images.npy")
    images[:700] //= 100
    np.save(folder / "train_images.npy", images)
    np.save(folder / "test_images.npy", images)
    np.save(folder / "test_labels.npy", np.load(folder / "train_labels.npy"))
    monkeypatch.setattr(streams, "SHOWN", 100)
    monkeypatch.setattr(seen, "EVALUATED", 50)
    monkeypatch.setattr(streams, "CHUNK", 32 * 784)
    config = counted(small_config(image_shape=(28, 28, 1), data=DataConfig(binarization="threshold")), batch_size=4)
    assert half.fit(half.create_state(config), datasets.load(folder, stream=True)).step


@pytest.mark.parametrize("framework", HALVES)
def test_two_processes_read_the_same_stream_and_one_goes_on(framework, folder, tmp_path):
    """Two epochs in a world of two, then two more in one process: the run that one process makes."""
    train = ["train", "--framework", framework, "--dataset", str(folder), *FLAGS]
    script(*train, "--epochs", "4", "--output", "alone", cwd=tmp_path)
    started = processes(["vae_common.cli", *train, "--epochs", "2", "--output", "shared"], 2, tmp_path)
    for member in started:
        _, said = member.communicate(timeout=120)
        assert member.returncode == 0, said
    script("train", "--resume", "shared", "--epochs", "4", cwd=tmp_path)
    runs = [safetensors.numpy.load_file(tmp_path / run / "weights.safetensors") for run in ("alone", "shared")]
    for name, array in runs[0].items():
        assert difference(array, runs[1][name]) < 1e-12, name


@pytest.mark.parametrize("framework", HALVES)
def test_two_processes_killed_within_an_epoch_and_one_goes_on(framework, folder, tmp_path):
    """The process that writes is killed between two batches; the other one ends, and the other half goes on alone."""
    flags = ["--dataset", str(folder), *FLAGS, "--epochs", "2"]
    script("train", "--framework", framework, *flags, "--output", "whole", cwd=tmp_path)
    killed = ["tests.data.killed_within", "train", "--framework", framework, *flags]
    first, second = processes([*killed, "--checkpoint-steps", "10", "--output", "killed"], 2, tmp_path)
    assert first.wait(120) == -signal.SIGKILL, first.stderr.read()
    since = time.monotonic()
    assert second.wait(60) != 0
    assert time.monotonic() - since < 30
    point = Run(tmp_path / "killed").checkpoint()
    assert point.epoch == 1
    assert len(point.terms.total) == 30
    (other,) = (name for name in HALVES if name != framework)
    script("train", "--resume", "killed", "--framework", other, cwd=tmp_path)
    whole, gone_on = (
        safetensors.numpy.load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "killed")
    )
    for name, array in whole.items():
        assert difference(array, gone_on[name]) < 1e-11, name
