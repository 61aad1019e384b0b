"""Nothing that was there is lost: files are written whole, and a command writes only where nothing of others is."""

import dataclasses
import json
import os
import re
import stat
import threading

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES, ROOT, contents
from vae_common import files
from vae_common.comparison.options import ClaimOptions
from vae_common.comparison.plan import PLAN, Plan
from vae_common.data import datasets, readers
from vae_common.errors import InputError
from vae_common.figures import plotting
from vae_common.figures.options import FigureOptions
from vae_common.runs import checkpoints, trainer
from vae_common.runs.folder import Run, new_folder

QUICK = ("--epochs", 1, "--hidden", 8, "--framework", "torch")


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A folder with a finished run of the PyTorch half, `run`."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "run").mkdir()
    config = small_config(dtype="float32", network=dataclasses.replace(small_config().network, hidden=(8,)))
    trainer.train(HALVES["torch"], config, datasets.load("digits"), folder / "run")
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """That run in a folder of its own."""
    (tmp_path / "run").mkdir()
    for name, data in contents(trained / "run").items():
        (tmp_path / "run" / name).write_bytes(data)
    return tmp_path


# 1. What a command may overwrite


@pytest.mark.parametrize(
    "target", ["run/checkpoint.safetensors", "run/summary.json", "run/config.json", "data.npz", "folder", "notes.json"]
)
def test_an_evaluation_overwrites_evaluations_only(run, refused, command, target):
    np.savez(run / "data.npz", a=1)
    (run / "folder").mkdir()
    (run / "notes.json").write_text('{"a": 1}')
    refused("evaluate", "--run", "run", "--samples", 0, "--output", target, cwd=run, said="is no evaluation")
    for _ in range(2):  # its own it may
        assert command("evaluate", "--run", "run", "--samples", 0, "--output", "e.json", cwd=run).status == 0
    earlier = json.loads((run / "e.json").read_text())
    assert earlier.pop("kind") == "evaluation"
    (run / "old.json").write_text(json.dumps(earlier))  # as an earlier version wrote it
    assert command("evaluate", "--run", "run", "--samples", 0, "--output", "old.json", cwd=run).status == 0


def test_a_sweep_writes_into_sweeps_only(run, refused, command):
    (run / "other").mkdir()
    (run / "other" / "table.csv").write_text("mine")
    (run / "compared").mkdir()
    (run / "compared" / "summary.json").write_text(json.dumps({"kind": "comparison"}))
    (run / "planned").mkdir()
    (run / "planned" / "comparison.json").write_text("{}")
    (run / "file").write_text("mine")
    (run / "s").mkdir()
    (run / "s" / "slurm-1.out").write_text("a cluster's")
    flags = ("--epochs", 1, "--hidden", 8, "--frameworks", "torch")
    for target in ("run", "other", "compared", "planned", "file"):
        refused("sweep", *flags, "--output", target, cwd=run, said="output: ")
    for _ in range(2):
        assert command("sweep", *flags, "--output", "s", cwd=run).status == 0
    summary = json.loads((run / "s" / "summary.json").read_text())
    del summary["kind"], summary["data"]
    (run / "s" / "summary.json").write_text(json.dumps(summary))
    assert command("sweep", *flags, "--output", "s", cwd=run).status == 0


def test_plot_overwrites_its_own_figures_only(run, refused, command):
    from PIL import Image

    (run / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(run / "pictures" / "reconstructions.png")
    (run / "words").mkdir()
    (run / "words" / "loss_curves.png").write_text("no picture")
    (run / "file").write_text("mine")
    for target, said in (("pictures", "no figure of this program"), ("words", "no figure"), ("file", "file")):
        refused("plot", "--run", "run", "--output", target, cwd=run, said=said)
    for _ in range(2):
        assert command("plot", "--run", "run", "--output", "own", cwd=run).status == 0


# 2. Permissions


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.write_atomically(tmp_path / "a", b"x")
        files.append_line(tmp_path / "b", "x")
    finally:
        os.umask(before)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


# 4. What a killed process leaves


def test_a_folder_with_parts_only_can_be_used(tmp_path):
    (tmp_path / ".config.json.ab12.part").write_text("{")
    assert new_folder(tmp_path, "x") == tmp_path
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        new_folder(tmp_path, "x")


def test_two_preparations_take_turns(tmp_path, small, monkeypatch):
    """The second waits, and reads what the first has made."""
    inside, made = [], []

    def prepare(name, *_):
        inside.append(name)
        assert len(inside) == 1
        made.append(name)
        threading.Event().wait(0.3)
        inside.pop()
        arrays = {f"{s}_{k}": getattr(getattr(small, s), k) for s in ("train", "test") for k in ("images", "labels")}
        return arrays | {"full_name": "mnist/3.0.1"}

    # Both have seen no cache file; the second comes to the lock when the first has left it.
    monkeypatch.setattr(readers, "require_tfds", lambda *_: threading.Event().wait(0.1 if made else 0.0))
    monkeypatch.setattr(readers, "read_tfds", prepare)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(datasets.load("mnist", data_dir=tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["mnist"]
    assert [len(dataset.train) for dataset in found] == [len(small.train)] * 2


def test_who_comes_late_to_a_preparation_reads_it(tmp_path, small, monkeypatch):
    """It saw no cache file, took its time to import TensorFlow, and found nobody in its way."""
    cache = datasets.cache_path("mnist", tmp_path)
    monkeypatch.setattr(readers, "require_tfds", lambda *_: datasets._write_cache(cache, small))
    monkeypatch.setattr(readers, "read_tfds", lambda *_: pytest.fail("prepared twice"))
    assert datasets.load("mnist", data_dir=tmp_path).fingerprint == small.fingerprint


# 5. A full disk


def full_disk(after):
    """`os.fsync` that fails as on a full disk, from the call `after` on."""
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(28, "No space left on device")

    return fsync


@pytest.mark.parametrize("after", range(6))
def test_a_full_disk_loses_nothing_of_a_finished_run(half, small, tmp_path, monkeypatch, after):
    """At whichever write of the resumed run it comes: summary and weights stay, and it can be resumed once more."""
    config = small_config()
    trainer.train(half, config, small, tmp_path)
    before = contents(tmp_path)
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=3))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk(after))
        with pytest.raises(OSError, match="No space left") as error:
            trainer.train(half, longer, small, tmp_path, resume=Run(tmp_path).resume_point())
        assert str(tmp_path) in error.value.filename
    after_it = contents(tmp_path)
    assert after_it.keys() == before.keys()
    assert after_it["summary.json"] == before["summary.json"]
    point = Run(tmp_path).resume_point()
    trainer.train(half, longer, small, tmp_path, resume=point)
    (whole := tmp_path / "whole").mkdir()
    trainer.train(half, longer, small, whole)
    one, other = (checkpoints.read(place / "checkpoint.safetensors").arrays for place in (tmp_path, whole))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_everything_is_written_through_files():
    """No other module writes: so all of it is whole or not there."""
    for path in [*(ROOT / "vae_common").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *ROOT.glob("*_vae/*.py")]:
        if path.name in ("files.py", "readers.py", "stopping.py"):  # the second has a temporary file for messages
            continue
        calls = r"write_text\(|write_bytes\(|(?<![\w.])open\(|\.save\(path|savefig\(path"
        assert not [line for line in path.read_text().splitlines() if re.search(calls, line)], path


# 6. Comparisons go on


def test_a_killed_comparison_goes_on(tmp_path, command, monkeypatch, refused):
    """Nothing is trained twice, and the report is that of one that never stopped."""
    quick = ("--models", "vae", "--epochs", 1, "--hidden", 8, "--batch-size", 500, "--seeds", 0, 1)
    assert command("compare", *quick, "--output", "whole", cwd=tmp_path).status == 0
    trained, original = [], trainer.train

    def killed(half, config, dataset, folder, **options):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(folder.name)
        return original(half, config, dataset, folder, **options)

    monkeypatch.setattr(trainer, "train", killed)
    assert command("compare", *quick, "--output", "c", cwd=tmp_path).status == 130
    monkeypatch.setattr(trainer, "train", lambda *a, **o: (trained.append(a[3].name), original(*a, **o))[1])
    refused("compare", "--resume", "c", "--epochs", 2, cwd=tmp_path, said="received --epochs, expected at most")
    refused("compare", "--resume", "nowhere", cwd=tmp_path, said="has no comparison.json")
    assert command("compare", "--resume", "c", cwd=tmp_path).status == 0
    assert len(trained) == len(set(trained)) == 4
    one, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("c", "whole"))
    assert one["models"]["vae"]["losses"] == other["models"]["vae"]["losses"]
    assert one["kind"] == "comparison"
    assert one["data"] == other["data"]
    assert "--seeds" in one["command"]  # what it was begun with
    assert command("compare", "--resume", "c", cwd=tmp_path).status == 0  # finished: compared anew, trained no more
    assert len(trained) == 4


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "{}",
        '{"kind": "comparison"}',
        "[" * 100_000,
        lambda plan: plan | {"configs": [{"model": "gan"}]},
        lambda plan: plan | {"seeds": [0, 0]},
        lambda plan: plan | {"configs": [{}], "claims": {"check": "all"}},
        lambda plan: plan | {"figures": plan["figures"] | {"steps": 10**9}},
        lambda plan: plan | {"data": "all:0"},
    ],
)
def test_a_damaged_plan_is_one_line(tmp_path, refused, damage):
    (tmp_path / "c").mkdir()
    dataset = datasets.load("digits")
    config = small_config(image_shape=dataset.image_shape)
    options = ClaimOptions(), FigureOptions()
    Plan((config,), (0,), False, *options, ("compare",)).write(tmp_path / "c", dataset)
    path = tmp_path / "c" / PLAN
    text = damage if isinstance(damage, str) else json.dumps(damage(json.loads(path.read_text())))
    path.write_text(text)
    refused("compare", "--resume", "c", cwd=tmp_path)


# 7. Safety


EVIL = "open('imported', 'w').close()"


@pytest.mark.parametrize("name", ["evil", "../evil", "", None, ["jax"], 3, "jax_vae", "os"])
def test_nothing_is_imported_because_a_file_says_so(run, refused, name):
    (run / "evil_vae.py").write_text(EVIL)
    (run / "evil_vae").mkdir()
    (run / "evil_vae" / "__init__.py").write_text(EVIL)
    folder = run / "stopped"
    folder.mkdir()
    record = json.loads((run / "run" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | {"framework": name}))
    summary = json.loads((run / "run" / "summary.json").read_text())
    (run / "run" / "summary.json").write_text(json.dumps(summary | {"framework": name}))
    refused("train", "--resume", "stopped", cwd=run, said="expected one of jax, torch")
    refused("compare", "--runs", "run", cwd=run, said="expected one of jax, torch")
    assert not (run / "imported").exists()


@pytest.mark.parametrize("depth", [10, 100_000])
@pytest.mark.parametrize("place", ["config.json", "summary.json"])
def test_deep_json_is_one_line(run, refused, place, depth):
    (run / "run" / place).write_text("[" * depth + "]" * depth)
    if place == "config.json":
        (run / "run" / "checkpoint.safetensors").unlink()
        refused("train", "--resume", "run", cwd=run)
    else:
        refused("compare", "--runs", "run", cwd=run)


def test_programs_are_kept_in_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = files.program_cache()
    for place in (folder, folder.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    os.chmod(folder, 0o755)
    assert stat.S_IMODE(files.program_cache().stat().st_mode) == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert files.program_cache() is None  # another user's: not read, not written


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/x", "{}/file"])
def test_no_folder_for_programs_is_no_error(tmp_path, monkeypatch, place, command, capsys):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", place.format(tmp_path))
    assert files.program_cache() is None


def test_figures_say_who_drew_them(tmp_path):
    from matplotlib.figure import Figure

    plotting.save(Figure(), tmp_path / "a.png")
    plotting.require_replaceable(tmp_path / "a.png")
    plotting.require_replaceable(tmp_path / "none.png")
