"""`kl_autoencoder` against diffusers' own `AutoencoderKL`: outputs, gradients, files, and faults that have to show.

All of it at size is `python -m scripts.against_diffusers`, recorded in results/diffusers.json.
"""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from tests.conformance.planting import forget_programs, functions
from tests.conformance.suite import assert_conformant, few_at_a_time, images_for, tiny_config
from tests.conftest import HALVES, ROOT, script
from vae_common.conformance.engine.checks import difference
from vae_common.conformance.engine.faults import everywhere, patched
from vae_common.conformance.lockstep import tier_checks
from vae_common.errors import InputError
from vae_common.runs import checkpoints, diffusers

pytest.importorskip("diffusers", reason="diffusers is not installed")
against = pytest.importorskip("scripts.against_diffusers")

RANDOM = [*against.random_settings(2)]
SMALL = {"block_out_channels": (8, 12), "norm_num_groups": 2, "latent_channels": 2, "sample_size": 8}


@pytest.mark.parametrize("precision", against.LIMITS)
@pytest.mark.parametrize("settings", RANDOM, ids=["first", "second"])
def test_every_number_is_the_originals(half, settings, precision):
    assert (found := against.compare(half, against.smooth(settings, precision), precision)).passed, found


def test_the_record_is_whole_and_within_its_limits():
    rows = json.loads((ROOT / "results" / "diffusers.json").read_text())["rows"]
    for half in ("jax_vae", "torch_vae"):
        for precision, limit in against.LIMITS.items():
            own = [row for row in rows if (row["half"], row["precision"]) == (half, precision)]
            assert len(own) >= 21
            assert max(row["parameters"] for row in own) == 83_653_863
            for row in own:
                assert against.Compared(**row).passed, row
                assert row["moments"] <= limit
                assert row["decoded"] <= limit


def test_all_tiers(monkeypatch):
    """T0 to T5 against the NumPy oracle, with two sizes of grids."""
    few_at_a_time(monkeypatch)
    config = tiny_config("kl_autoencoder")
    assert_conformant(tier_checks(HALVES, config, images_for(config), steps=10), "float64")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder that diffusers wrote, of a model whose log sigma^2 goes past its clamp; and what the original gives."""
    model = against.original(SMALL, "float64")
    model.quant_conv.bias.data[2] -= 40
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((2, 32))
    return SimpleNamespace(folder=folder, images=images, noise=noise, of=against.by_diffusers(model, images, noise))


def apart(half, saved):
    """The largest difference of a half's forward pass from the original's."""
    model, _ = half.load_diffusers(saved.folder)
    outputs = half.forward(model, saved.images, saved.noise)
    (layer,) = outputs.layers
    found = {"mean": layer.posterior.mean, "log_std": layer.posterior.log_std}
    gaps = [difference(found[name].reshape(of.shape), of) for name, of in saved.of["moments"].items()]
    return max(*gaps, difference(outputs.logits, saved.of["decoded"]["decoded"]))


def calling(cls, f, change):
    """A layer whose result is another: `change` gets the layer, its input and its own result."""
    original = getattr(cls, f.call)
    return [(cls, f.call, lambda self, x: change(self, x, original(self, x)))]


def padded_all_around(half, f):
    if f.jax:
        import jax.numpy as jnp

        def larger(x):
            return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    else:
        from torch.nn import functional

        def larger(x):
            return functional.pad(x, (0, 0, 1, 1, 1, 1))

    convolve = half.operations.convolve
    return calling(half.blocks.Downsampler, f, lambda self, x, _: convolve(larger(x), self.conv, None))


def bilinear(half, f):
    if f.jax:
        import jax

        def larger(x):
            return jax.image.resize(x, (len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]), "bilinear")
    else:
        from torch.nn import functional

        def larger(x):
            return functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="bilinear").permute(0, 2, 3, 1)

    convolve = half.operations.convolve
    return calling(half.blocks.Upsampler, f, lambda self, x, _: convolve(larger(x), self.conv, None))


def more_groups(half, f):
    original = half.blocks.GroupNorm.__init__
    return [(half.blocks.GroupNorm, "__init__", lambda self, channels, groups: original(self, channels, 2 * groups))]


def without_residual(half, f):
    return calling(half.blocks.ResidualBlock, f, lambda self, x, y: y if self.conv_shortcut is not None else y - x)


def of_kl(half, change):
    """The model's `encode`, changed."""
    cls = half.KLAutoencoder
    original = cls.encode
    return [(cls, "encode", lambda self, images, labels=None: change(original(self, images)))]


def channels_first(half, f):
    cls = half.KLAutoencoder
    original = cls.decode

    def decode(self, latents, labels=None):
        height, width, channels = self.latent_shape
        latents = latents.reshape(-1, channels, height, width)
        return original(self, latents.transpose(0, 2, 3, 1) if f.jax else latents.permute(0, 2, 3, 1))

    return [(cls, "decode", decode)]


def kl_module(half):
    return next(value for name, value in vars(half.models).items() if name == "kl_autoencoder")


FAULTS = {
    "GroupNorm's eps 1e-5": lambda half, f: everywhere(half, "EPSILON", 1e-5),
    "padding all around in the downsampler": padded_all_around,
    "no clamp": lambda half, f: [(kl_module(half), "LOWEST", -1e9)],
    "attention scaled by 1 / channels": lambda half, f: [(half.blocks, "math", SimpleNamespace(sqrt=float))],
    "no residual": without_residual,
    "twice the groups": more_groups,
    "bilinear for nearest": bilinear,
    "gelu for silu": lambda half, f: [(half.ACTIVATIONS, "silu", half.ACTIVATIONS["gelu"])],
    "log sigma^2 taken as log sigma": lambda half, f: of_kl(half, lambda q: q._replace(log_std=2 * q.log_std)),
    "latents flattened with channels first": channels_first,
}


def test_without_a_fault_it_is_the_original(half, saved):
    assert apart(half, saved) < 1e-12


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(half, saved, fault):
    try:
        with patched(FAULTS[fault](half, functions(half))):
            forget_programs(half)
            assert apart(half, saved) > 1e-9
    finally:
        forget_programs(half)


def test_older_names_of_attention(half, saved, tmp_path):
    """As query, key, value and proj_attn, and as 1x1 convolutions."""
    folder = tmp_path / "older"
    shutil.copytree(saved.folder, folder)
    arrays = safetensors.numpy.load_file(folder / diffusers.WEIGHTS)
    older = {}
    for name, array in arrays.items():
        for before, after in diffusers.OLDER.items():
            if f".{after}." in name:
                name = name.replace(after, before)
                array = array[:, :, None, None] if array.ndim == 2 else array
        older[name] = array
    assert set(older) != set(arrays)
    safetensors.numpy.save_file(older, folder / diffusers.WEIGHTS)
    found, expected = (half.to_arrays(half.load_diffusers(place).model) for place in (folder, saved.folder))
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("act_fn", "mish", "act_fn: received 'mish', expected one of silu, swish, gelu, relu"),
        ("down_block_types", ["AttnDownEncoderBlock2D"] * 2, "down_block_types: received"),
        ("out_channels", 4, "out_channels: received 4, expected in_channels, 3"),
        ("mid_block_type", "UNetMidBlock2DCrossAttn", "mid_block_type: received"),
        ("_class_name", "AutoencoderTiny", "_class_name: received 'AutoencoderTiny', expected AutoencoderKL"),
        ("block_out_channels", "8", "block_out_channels: received '8', expected one such as"),
        ("norm_num_groups", 5, "norm_groups 5"),
        ("layers_per_block", True, "layers_per_block: received True"),
    ],
)
def test_what_would_change_a_result_is_refused(saved, tmp_path, field, value, said):
    settings = json.loads((saved.folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {field: value}))
    shutil.copy(saved.folder / diffusers.WEIGHTS, tmp_path)
    with pytest.raises(InputError) as error:
        diffusers.read(tmp_path)
    assert said in str(error.value)


def test_files_that_are_none(saved, tmp_path):
    for said in ("config.json does not exist", "is not there", "a pickle", "cannot be read"):
        with pytest.raises(InputError) as error:
            diffusers.read(tmp_path)
        assert said in str(error.value).replace("No such file or directory", "does not exist"), error.value
        if said.startswith("config"):
            shutil.copy(saved.folder / "config.json", tmp_path)
        elif said == "is not there":
            (tmp_path / diffusers.WEIGHTS).with_suffix(".bin").write_bytes(b"x")
        else:
            (tmp_path / diffusers.WEIGHTS).write_bytes((saved.folder / diffusers.WEIGHTS).read_bytes()[:-9])


def test_imported_trained_in_both_halves_and_exported(saved, tmp_path):
    """The original's weights, fine-tuned in one half and then in the other, in lockstep, load into diffusers again."""
    images = np.random.default_rng(3).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "set.npz", train_images=images[:30], test_images=images[30:])
    trained = {}
    for name in HALVES:
        flags = ("--framework", name, "--dataset", "set.npz", "--precision", "float64", "--batch-size", 10)
        script("import_model", saved.folder, *flags, "--output", name, cwd=tmp_path)
        script("train", "--resume", name, "--epochs", 3, cwd=tmp_path)
        trained[name] = checkpoints.read(tmp_path / name / "checkpoint.safetensors")
    a, b = (trained[name].arrays for name in HALVES)
    losses = [[record["train"]["total_nats"] for record in trained[name].history] for name in HALVES]
    np.testing.assert_allclose(*losses, rtol=1e-11)
    assert max(difference(a[name], array) for name, array in b.items()) < 1e-9
    script("export_model", "jax", "--output", "out", "--scaling-factor", 0.5, cwd=tmp_path)
    kind = against.diffusers.AutoencoderKL
    again = kind.from_pretrained(tmp_path / "out", torch_dtype=against.torch.float64, low_cpu_mem_usage=False)
    assert again.config.scaling_factor == 0.5
    assert again.config.block_out_channels == [8, 12]
    noise = np.random.default_rng(4).standard_normal((2, 32))
    unit = images[:2].astype(np.float64) / 255
    expected = against.by_diffusers(again, unit, noise)
    half = HALVES["torch"]
    model, config = half.load(tmp_path / "torch")
    outputs = half.forward(model, unit, noise)
    assert difference(outputs.logits, expected["decoded"]["decoded"]) < 1e-9
    assert math.isfinite(float(expected["loss"]["loss"]))
    with pytest.raises(InputError, match="reconstruction: received 'bernoulli', expected linear_gaussian"):
        other = config.__class__(model=config.model, image_shape=config.image_shape, network=config.network)
        half.save_diffusers(model, other, tmp_path / "other")
    assert not (tmp_path / "other").exists()
