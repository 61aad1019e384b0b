"""Data and settings that were once trained on, or reported, as something else: refused, or taken as meant."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES, rendered
from vae_common import randomness
from vae_common.cli.command_line import parse
from vae_common.cli.train import Arguments
from vae_common.config import DataConfig, NetworkConfig, OptimizerConfig
from vae_common.data import datasets, pixels
from vae_common.data.seen import binarize, evaluation_images
from vae_common.data.splits import Split
from vae_common.errors import InputError
from vae_common.figures import of_models, plotting
from vae_common.metrics import descriptors, similarity
from vae_common.runs import checkpoints, trainer
from vae_common.runs.epoch_records import TERMS
from vae_common.runs.folder import Run, require_data
from vae_common.runs.resume import begun
from vae_common.studies import sweeps

MASKS = np.eye(8, dtype=np.uint8)[None, ..., None].repeat(24, 0)
LABELS = np.arange(24) % 3


def npz(path, images, labels=LABELS, **more):
    arrays = {"train_images": images, "test_images": images[:12]}
    if labels is not None:
        arrays |= {"train_labels": labels, "test_labels": labels[:12]}
    np.savez(path, **arrays | more)
    return str(path)


# 1. 8-bit images that were never brought to 0 to 255


@pytest.mark.parametrize("largest", [1, 2, 7, 15, 16])
def test_unscaled_images_are_refused_everywhere(half, tmp_path, largest):
    images = MASKS * largest
    model = half.create_model(small_config(image_shape=(8, 8, 1)))
    calls = [
        lambda: datasets.load(npz(tmp_path / "a.npz", images)),
        lambda: binarize(images, "threshold", "train"),
        lambda: binarize(images, "static", "test"),
        lambda: half.encode(model, images),
        lambda: half.encode(model, images[:10]),
        lambda: half.reconstruct(model, images),
        lambda: half.evaluate(model, images, small_config(image_shape=(8, 8, 1))),
        lambda: half.place_images(images, small_config(image_shape=(8, 8, 1))),
    ]
    for call in calls:
        with pytest.raises(InputError, match=rf"largest value is {largest}, expected values from 0 to 255") as error:
            call()
        mend = re.search(r"scale them, (.*), or give masks as bool, (images.astype\(bool\))", str(error.value))
        scaled = eval(mend[1], {"images": images, "np": np})  # what the message says does what it should
        assert scaled.dtype == np.uint8
        np.testing.assert_array_equal(scaled, MASKS * 255)
        binarize(scaled, "threshold", "train")


@pytest.mark.parametrize("mode", ["none", "threshold", "static"])
def test_masks_are_taken_as_bool(half, tmp_path, mode):
    """Bool and 0/255 are the same images, in a file, in the loader's functions and in a model."""
    as_bool = datasets.load(npz(tmp_path / "bool.npz", MASKS > 0))
    as_bytes = datasets.load(npz(tmp_path / "bytes.npz", MASKS * 255))
    np.testing.assert_array_equal(as_bool.train.images, as_bytes.train.images)
    assert binarize(np.eye(8, dtype=bool), mode, "train").sum() == 8 * 255
    np.testing.assert_array_equal(binarize(MASKS > 0, mode, "test"), MASKS * 255)
    model = half.create_model(small_config(image_shape=(8, 8, 1)))
    codes = [half.encode(model, images).mean for images in (MASKS > 0, MASKS * 255, MASKS.astype(float))]
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(codes[0], codes[2])


def test_a_few_dark_images_are_what_they_are(half, small):
    model = half.create_model(small_config(image_shape=(8, 8, 1)))
    for images in (np.zeros((1, 8, 8, 1), np.uint8), MASKS[:1] * 9):
        assert np.isfinite(half.encode(model, images).mean).all()
    with pytest.raises(InputError, match="largest value is 1"):
        half.encode(model, MASKS[:1])
    images, held = small.train.images.copy(), randomness.split_order(len(small.train))[:2]
    images[held] //= 20
    dark = dataclasses.replace(small, train=Split(images, small.train.labels)).hold_out(2)
    assert dark.validation.images.max() <= pixels.DARKEST < dark.train.images.max()
    images = np.full_like(images, 9)
    images[held[0]] = 255
    with pytest.raises(InputError, match="train split: received 8-bit images whose largest value is 9"):
        dataclasses.replace(small, train=Split(images, small.train.labels)).hold_out(1)
    assert not binarize(binarize(MASKS * 100, "threshold", "test"), "threshold", "test").any()


@pytest.mark.parametrize("kind", ["bool", "uint8", "float32"])
def test_a_bias_from_the_data_reads_them_as_they_are(half, kind):
    config = small_config(network=NetworkConfig(hidden=(4,), latent_dim=2, output_bias="data_mean"))
    images = {"bool": np.ones((9, 28, 28, 1), bool), "uint8": np.full((9, 28, 28, 1), 255, np.uint8)}
    images["float32"] = np.ones((9, 28, 28, 1), np.float32)
    bias = half.to_arrays(half.create_state(config, images[kind]).model)["decoder.logits.bias"]
    np.testing.assert_allclose(bias, np.log(0.999 / 0.001))
    with pytest.raises(InputError, match="largest value is 1"):
        half.create_state(config, np.ones((19, 28, 28, 1), np.uint8))


# 2. Rows that stand for a set


def test_rows_are_drawn_from_all_over():
    """The issue's own case: sorted by class, one of three far away; over all rows 0.668 and 0.300."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 1000)
    x = rng.normal(size=(3000, 2)) + np.array([[-9, 0], [9, 0], [9, 0]])[y]
    whole = {"knn": descriptors.knn_accuracy(x, y), "silhouette": descriptors.silhouette(x, y)}
    some = descriptors.describe(x, None, y, x)
    assert some["knn_accuracy"] == pytest.approx(whole["knn"], abs=0.03)
    assert some["silhouette"] == pytest.approx(whole["silhouette"], abs=0.03)
    assert whole["silhouette"] == pytest.approx(0.300, abs=0.001)


@pytest.mark.parametrize(("count", "most"), [(3000, 2000), (3000, 5000), (10, 3), (1, 5)])
def test_a_draw_of_rows_is_fixed_and_without_repeats(count, most):
    rows = randomness.some_rows(count, most)
    assert len(set(rows.tolist())) == min(count, most)
    np.testing.assert_array_equal(rows, randomness.some_rows(count, most))
    if count == 3000 and most == 2000:
        assert abs(rows.mean() - 1500) < 50


def test_between_sets_the_same_rows_are_taken():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2)) + np.arange(3000)[:, None] / 100
    assert similarity.similarities(x, x, most=200)["mutual_neighbours"] == 1


def test_the_scatter_of_a_sorted_set_has_every_class(half, small, tmp_path, monkeypatch):
    order = np.argsort(small.test.labels, kind="stable")
    test = Split(small.test.images[order], small.test.labels[order])
    dataset = dataclasses.replace(small, test=test)
    shown = {}
    monkeypatch.setattr(of_models, "SHOWN_POINTS", 40)
    monkeypatch.setattr(plotting, "save", lambda figure, path: path)
    original = plotting.latent_scatter
    monkeypatch.setattr(
        plotting, "latent_scatter", lambda c, classes, *a: (shown.update(classes=classes), original(c, classes, *a))[1]
    )
    config = small_config()
    history = [{"epoch": 1, "train": dict.fromkeys(TERMS, 1.0), "test": dict.fromkeys(TERMS, 1.0)}]
    rendered({"A": half}, config, dataset, tmp_path, histories=[history])
    assert len(shown["classes"]) == 40
    assert len(set(shown["classes"].tolist())) >= 8


# 3. The fingerprint


CHANGES = {
    "a training image": lambda d: dataclasses.replace(d, train=_with(d.train, image=True)),
    "a training label": lambda d: dataclasses.replace(d, train=_with(d.train, label=True)),
    "a test image": lambda d: dataclasses.replace(d, test=_with(d.test, image=True)),
    "a test label": lambda d: dataclasses.replace(d, test=_with(d.test, label=True)),
    "a class name": lambda d: dataclasses.replace(d, class_names=(*d.class_names[:-1], "nine")),
    "the validation split": lambda d: d.hold_out(20),
    "a validation label": lambda d: dataclasses.replace(
        d.hold_out(20), validation=_with(d.hold_out(20).validation, label=True)
    ),
}


def _with(split, image=False, label=False):
    images, labels = split.images.copy(), split.labels.copy()
    if image:
        images[-1, 0, 0, 0] ^= 255
    if label:
        labels[-1] = (labels[-1] + 1) % 10
    return Split(images, labels)


@pytest.mark.parametrize("change", CHANGES)
def test_a_fingerprint_covers_all_that_decides_a_number(small, change, tmp_path):
    changed = CHANGES[change](small)
    assert changed.fingerprint != small.fingerprint
    assert not changed.matches(small.fingerprint)
    with pytest.raises(InputError, match="other images, labels or splits"):
        require_data(tmp_path, small.fingerprint, changed)


def test_an_earlier_fingerprint_is_of_training_images_only(small, tmp_path, capsys):
    images = small.train.images
    earlier = hashlib.sha256(f"{images.shape}".encode() + images.tobytes()).hexdigest()
    for change, expected in (("a test label", None), ("a training image", False)):
        assert CHANGES[change](small).matches(earlier) is expected
    require_data(tmp_path, earlier, small)
    assert "labels and test images unknown" in capsys.readouterr().err


def test_every_command_sees_changed_labels(command, refused, tmp_path, small):
    """Resume, evaluate, plot, compare and sweep, with test labels that have changed since."""

    def write(labels):
        np.savez(
            tmp_path / "d.npz", train_images=small.train.images, train_labels=small.train.labels,
            test_images=small.test.images, test_labels=labels,
        )  # fmt: skip

    write(small.test.labels)
    quick = ("--dataset", "d.npz", "--epochs", 1, "--hidden", 8, "--batch-size", 50)
    for name in ("jax", "torch"):
        assert command("train", "--framework", name, "--output", name, *quick, cwd=tmp_path).status == 0
    assert command("sweep", "--frameworks", "torch", "--output", "s", *quick, cwd=tmp_path).status == 0
    write((small.test.labels + 1) % 10)
    for flags in (
        ("train", "--resume", "jax", "--epochs", 2),
        ("evaluate", "--run", "jax", "--samples", 0),
        ("plot", "--run", "torch"),
        ("compare", "--runs", "jax", "torch"),
        ("sweep", "--frameworks", "torch", "--output", "s", *quick),
    ):
        refused(*flags, cwd=tmp_path, said="other images, labels or splits")


# 4. Channels first


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first_is_refused(half, tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (24, channels, 8, 6), np.uint8)
    with pytest.raises(InputError, match=r"np.moveaxis\(images, 1, -1\)"):
        datasets.load(npz(tmp_path / "a.npz", images))
    assert datasets.load(npz(tmp_path / "b.npz", np.moveaxis(images, 1, -1))).image_shape == (8, 6, channels)
    model = half.create_model(small_config(image_shape=(8, 6, channels)))
    with pytest.raises(InputError, match=r"np.moveaxis\(images, 1, -1\)"):
        half.encode(model, images)


@pytest.mark.parametrize("shape", [(3, 8, 3), (1, 8, 1), (4, 4, 3), (8, 8, 13)])
def test_what_has_its_channels_last_is_taken(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, (24, *shape), np.uint8)
    assert datasets.load(npz(tmp_path / "a.npz", images)).image_shape == shape


# 5. How any number of channels is shown


def test_projections():
    rng = np.random.default_rng(0)
    image = rng.random((1, 2, 2, 4))
    image[..., 3] = [[0, 1], [0.5, 1]]
    seen = plotting.tile(image, 1)
    np.testing.assert_allclose(seen[0, 0], 1)  # fully transparent: white
    np.testing.assert_allclose(seen[0, 1], image[0, 0, 1, :3])
    np.testing.assert_allclose(seen[1, 0], image[0, 1, 0, :3] / 2 + 0.5)
    five = rng.random((1, 2, 2, 5))
    np.testing.assert_allclose(plotting.tile(five, 1), five[0].mean(-1))
    assert [plotting.projection(n) for n in (1, 3, 4, 5)] == ["", "", "RGB over white", "mean of 5 channels"]


# 6. Images and labels of another kind than a model's


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("mode", ["static", "threshold", "dynamic"])
def test_a_binarized_model_takes_binarized_images_only(half, small, mode, kind):
    config = small_config(data=DataConfig(binarization=mode))
    model = half.create_model(config)
    grey = small.test.images[:6] if kind == "uint8" else small.test.images[:6] / 255
    binarized = evaluation_images(small, mode)[1][:6]
    for function in (half.evaluate, lambda m, i, c: half.log_marginal(m, i, c, 10)):
        with pytest.raises(InputError, match="received grey ones, expected binarized"):
            function(model, grey, config)
        function(model, binarized, config)
        function(model, binarized > 0, config)


@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        (LABELS + 1, 4, "no training image of a has the label 0; expected labels numbered from 0 without a gap"),
        (LABELS * 2, 5, "has the label 1, 3"),
        (LABELS, 2, "the train split of a has labels from 0 to 2"),
        (None, 3, "the train split of a has no labels"),
    ],
)
def test_every_class_has_been_trained(tmp_path, labels, classes, said):
    dataset = datasets.load(npz(tmp_path / "a.npz", MASKS > 0, labels))
    with pytest.raises(InputError, match=said):
        dataset.require_labels(classes)
    dataset.require_labels(0)


# 7. Sweeps


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["loss.beta=1,1"], "are one experiment"),
        (["loss.beta=1,1.0"], "are one experiment"),
        (["network.hidden=[8],[8]"], "are one experiment"),
        (["loss.beta=1,2", "loss.beta=3"], "each field once"),
        (['loss.beta={"a":1}'], "expected numbers, words or lists"),
        (["loss.beta=1,,2"], "expected numbers, words or lists"),
        (["loss.beta="], "expected field=value"),
        (["network={}"], "expected numbers, words or lists"),
        (["loss=1"], "expected an object with named fields"),
        (["network.hidden=[[8]]"], "hidden: received"),
        (["training.batch_size=5000"], "batch_size: received 5000"),
        (["training.device=auto,cpu"], "one experiment in torch"),
        (["training.execution=auto,eager"], "one experiment in torch"),
    ],
)
def test_a_sweep_counts_each_experiment_once(vary, said, small, tmp_path):
    with pytest.raises(InputError, match=said):
        sweeps.check({"torch": HALVES["torch"]}, small_config(), vary, [0], small, tmp_path / "s")
    assert not (tmp_path / "s").exists()


# 9. An extended run, killed before its first new checkpoint


def test_an_extension_is_remembered(half, small, tmp_path):
    config = small_config()
    trainer.train(half, config, small, tmp_path)
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=7))
    point = Run(tmp_path).resume_point()
    framework = half.__name__.removesuffix("_vae")
    assert framework == point.framework

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(half, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(half, longer, small, tmp_path, resume=point)
    again = Run(tmp_path).resume_point()
    assert (again.epoch, again.config.training.epochs) == (2, 7)
    assert begun(tmp_path, longer) is not None


# 11. The state


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("adam.second.decoder.logits.bias", np.inf, "NaN or infinite"),
        ("adam.second.decoder.logits.bias", np.nan, "NaN or infinite"),
        ("adam.second.decoder.logits.bias", -1e-9, "negative numbers"),
        ("adam.first.encoder.mean.weight", -np.inf, "NaN or infinite"),
        ("encoder.mean.weight", np.nan, "NaN or infinite"),
    ],
)
def test_a_checkpoint_is_checked_when_it_is_read(half, state, tmp_path, name, value, said):
    arrays = half.state_to_arrays(state)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[0] = value
    with pytest.raises(InputError, match=said):
        half.state_from_arrays(state.config, arrays)
    checkpoint = checkpoints.Checkpoint(arrays, state.config, "jax", 1, [{"epoch": 1}], "f")
    checkpoints.write(tmp_path / "c", checkpoint)
    with pytest.raises(InputError, match=said):
        checkpoints.read(tmp_path / "c")


def test_infinite_moments_end_a_run(half, small, tmp_path, command):
    """In float32 the square of a gradient overflows long before a loss does; its parameter would merely stand still."""
    for flags, said in (
        (("--beta", "1e25"), "a smaller beta than 1e+25"),
        (("--reconstruction", "gaussian", "--sigma", "1e-12"), "a larger sigma than 1e-12"),
    ):
        name = half.__name__.removesuffix("_vae")
        output = said.split()[2]
        flags = (*flags, "--framework", name, "--epochs", 2, "--hidden", 8, "--output", output)
        done = command("train", *flags, cwd=tmp_path)
        assert done.status == 1, done.err
        assert "became infinite or NaN in epoch 1" in done.err
        assert said in done.err
        assert Run(tmp_path / output).checkpoint().epoch == 0
        assert not (tmp_path / output / "summary.json").exists()


@pytest.mark.parametrize("part", ["weights", "first moments", "second moments", "averaged weights"])
def test_every_part_of_a_state_is_looked_at(half, part):
    config = small_config(optimizer=OptimizerConfig(average=0.9))
    arrays = half.state_to_arrays(half.create_state(config))
    assert half.lost_part(half.state_from_arrays(config, arrays)) is None
    prefix = {"weights": "", "first moments": "adam.first.", "second moments": "adam.second."}.get(part, "average.")
    arrays[f"{prefix}encoder.mean.bias"] = np.full(3, np.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "require_sound", lambda arrays: None)
        assert half.lost_part(half.state_from_arrays(config, arrays)) == part


# 13. Repeated flags


def test_the_last_of_a_repeated_flag_counts(command, refused, tmp_path):
    quick = ("--hidden", 8, "--framework", "torch")
    done = command(
        "train", "--epochs", 5, "--epochs", 1, "--seed", 3, "--seed=4", *quick, "--output", "a", cwd=tmp_path
    )
    summary = json.loads(done.out.splitlines()[-1])
    assert (summary["epochs"], summary["seed"]) == (1, 4)
    refused("train", "--resume", "a", "--resume", "nowhere", cwd=tmp_path, said="nowhere does not exist")
    done = command("train", "--resume", "nowhere", "--resume", "a", "--epochs", 9, "--epochs", 2, cwd=tmp_path)
    assert json.loads(done.out.splitlines()[-1])["epochs"] == 2
    for presets, binarization in ((("iwae", "default"), "none"), (("default", "bernoulli50"), "dynamic")):
        flags = [word for preset in presets for word in ("--preset", preset)]
        assert parse(Arguments, flags).experiment.data.binarization == binarization
