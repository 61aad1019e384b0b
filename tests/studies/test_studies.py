"""Sweeps, evaluations and the paper's table: from the shell, stopped and gone on with, and what they refuse."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import QUICK, script
from vae_common.backend import name_of
from vae_common.cli.paper_table import Arguments, main
from vae_common.config import Config, DataConfig, NetworkConfig, TrainingConfig
from vae_common.data import datasets
from vae_common.data.splits import Split
from vae_common.errors import InputError
from vae_common.studies import paper_schedule, paper_table, sweep_plots, sweeps


def test_a_sweep_skips_what_has_finished_and_goes_on_with_what_was_stopped(tmp_path):
    flags = ("--vary", "loss.beta=0.5,2", "network.hidden=[16],[8,8]", "--frameworks", "torch", "--epochs", "2")
    result = script("sweep", *flags, "--tensorboard", "--output", "s", cwd=tmp_path)
    assert result["runs"] == 4
    rows = list(csv.DictReader((tmp_path / "s/table.csv").open()))
    assert {(row["loss.beta"], row["network.hidden"]) for row in rows} == {
        (beta, hidden) for beta in ("0.5", "2") for hidden in ("[16]", "[8, 8]")
    }
    assert (tmp_path / "s/sweep.png").stat().st_size > 5000
    folders = [tmp_path / row["folder"] for row in rows]
    assert all(list(folder.glob("events.out.tfevents.*")) for folder in folders)
    written = [(folder / "checkpoint.safetensors").stat().st_mtime_ns for folder in folders]
    (folders[1] / "summary.json").unlink()  # as if it had been killed
    again = script("sweep", *flags, "--output", "s", cwd=tmp_path)
    assert again["points"] == result["points"]
    now = [(folder / "checkpoint.safetensors").stat().st_mtime_ns for folder in folders]
    assert [a == b for a, b in zip(written, now)] in ([True] * 4, [True, False, True, True])
    other = script("sweep", *flags[:-1], "3", "--output", "s", cwd=tmp_path, status=2)
    assert "holds another experiment" in other


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_run_that_diverges_is_a_row(tmp_path, half, small, ensemble):
    """The other runs and the table come all the same, and it is not tried again."""
    training = TrainingConfig(epochs=2, batch_size=20)
    base = Config(network=NetworkConfig(hidden=(8,)), training=training)
    specification = ["training.learning_rate=1e-3,1e30", "loss.reconstruction=bernoulli,squared_error"]

    def sweep():
        return sweeps.train({"one": half}, base, specification, [0, 1], small, tmp_path, ensemble=ensemble)

    rows = sweep()
    assert [row["diverged"] for row in rows] == [False] * 4 + [True] * 4
    assert rows[-1]["total_nats"] is None
    means = sweeps.by_point(rows, ["training.learning_rate", "loss.reconstruction"])
    assert [(entry["seeds"], entry["diverged"]) for entry in means] == [(2, 0)] * 2 + [(0, 2)] * 2
    assert len({entry["reconstruction_unit"] for entry in means}) == 2
    assert len(sweeps.as_csv(rows).splitlines()) == 9
    assert sweep() == rows
    assert sweep_plots.sweep([entry | {"framework": "jax"} for entry in means], ["training.learning_rate"])
    with pytest.raises(InputError, match="holds another experiment"):
        sweeps.train(
            {"one": half}, replace(base, data=DataConfig(binarization="static")), specification, [0], small, tmp_path
        )
    other = replace(small, train=Split(small.train.images[::-1], small.train.labels[::-1]))
    with pytest.raises(InputError, match="was trained on other images"):
        sweeps.train({"one": half}, base, specification, [0, 1], other, tmp_path)


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("beta", "expected field=value,value"),
        ("loss.gamma=1", "received 'loss.gamma', expected a field of the config"),
        ("loss.beta=-1", "beta: received -1"),
        ("seed=1,2", "other than the seed"),
        ("data.validation_size=0,9", "other than the seed and the data"),
        ('model={"a":1}', "expected numbers, words or lists"),
        ("loss.objective=iwae,elbow", "objective: received 'elbow'"),
    ],
)
def test_sweeps_that_are_refused(vary, said):
    with pytest.raises(InputError, match=said):
        sweeps.points([vary], Config())


def test_evaluation_of_either_halfs_run_in_either_half(tmp_path):
    flags = ("--binarization", "static", "--output", "run", *QUICK)
    script("train", "--framework", "jax", *flags, cwd=tmp_path)
    results = [
        script(
            "evaluate", "--run", "run", "--samples", "60", "--framework", half, "--output", f"{half}.json", cwd=tmp_path
        )
        for half in ("jax", "torch")
    ]
    a, b = results
    assert a["nll_nats"] == pytest.approx(b["nll_nats"], rel=1e-5)
    assert a["nll_nats"] < a["negative_elbo_nats"] == pytest.approx(a["distortion"] + a["rate_nats"])
    assert a["is_likelihood"]
    assert 0 < a["nll_monte_carlo_error"] < a["nll_standard_error"]
    assert json.loads((tmp_path / "torch.json").read_text()) == b
    assert "samples: received -1" in script("evaluate", "--run", "run", "--samples", "-1", cwd=tmp_path, status=2)
    held_out = script("evaluate", "--run", "run", "--split", "validation", cwd=tmp_path, status=2)
    assert "split: received validation, but the run held none out" in held_out


def test_evaluation_says_what_is_no_likelihood_and_reports_the_codebook(tmp_path):
    script("train", "--model", "vq_vae", "--latent-dim", "6", "--codes", "9", "--output", "run", *QUICK, cwd=tmp_path)
    found = script("evaluate", "--run", "run", cwd=tmp_path)
    assert found["nll_nats"] is found["negative_elbo_nats"] is None
    assert "no posterior" in found["nll_refused"]
    assert "not a likelihood" in found["reconstruction_unit"]
    assert found["rate_nats"] == pytest.approx(6 * np.log(9), rel=1e-6)
    book = found["codebook"]
    assert 1 <= book["used"] <= book["codes"] == 9
    assert 1 <= book["perplexity"] <= book["used"]


def test_the_papers_table_in_small(tmp_path, digits):
    """440 images, so two steps a pass: stage by stage, with what is missing marked so."""
    train = Split(digits.train.images[:440], digits.train.labels[:440])
    test = Split(digits.test.images[:20], digits.test.labels[:20])
    datasets._write_cache(datasets.cache_path("mnist", tmp_path / "data"), replace(digits, train=train, test=test))
    flags = ("--rows", "k1", "iwae-k5", "--samples", "20", "--output", "t")
    assert script("paper_table", "--stages", "1", *flags, cwd=tmp_path)["passes"] == 4
    table = json.loads((tmp_path / "t/paper/table.json").read_text())
    by_row = {(entry["objective"], entry["samples"]): entry for entry in table["entries"]}
    assert by_row["VAE", 1]["jax"] == by_row["IWAE", 1]["jax"] > 0
    assert abs(by_row["IWAE", 5]["difference"]) < 0.01
    assert by_row["VAE", 50]["jax"] is None
    assert "| VAE, k = 50 | 86.35 | missing | missing | missing |" in (tmp_path / "t/paper/table.md").read_text()


def test_the_papers_rows_of_several_seeds(tmp_path, half, small):
    """In one program, each as it would be alone; estimates from other numbers of samples do not mix in the table."""
    name = name_of(half)

    def study(seeds, samples, place, stage=1, adam="paper"):
        base = paper_schedule.base_config(small.image_shape)
        return paper_table.Study(tmp_path / place, base, small, adam, stage, seeds, samples, ("here",))

    def row(seeds, samples, place, stage=1):
        paper_table.train_row(half, study(seeds, samples, place, stage), "k1")
        return paper_table.table(study(seeds, samples, place))["entries"][0]

    assert row((1,), 20, "alone", stage=0)[name] is None  # not as far as the table yet
    together, alone = row((0, 1), 20, "together"), row((1,), 20, "alone")
    assert together[f"{name}_evaluations"][1]["nll_nats"] == pytest.approx(alone[name], rel=1e-5)
    assert row((0, 1), 30, "together")[f"{name}_evaluations"][0]["samples"] == 30
    assert paper_table.table(study((0, 1), 20, "together"))["entries"][0][name] is None
    assert together["difference"] is None
    with pytest.raises(InputError, match="holds another experiment"):
        paper_table.train_row(half, study((1,), 9, "alone", adam="code"), "k1")
    # Stopped apart: what is behind goes on alone.
    shutil.rmtree(tmp_path / "together" / f"{name}-k1-seed0")
    assert row((0, 1), 20, "together")[name] == pytest.approx(together[name], rel=1e-5)


def test_a_stage_that_is_none():
    with pytest.raises(InputError, match="an integer from 0 to 7"):
        main(Arguments(stages=8))


def test_the_papers_schedule():
    """Table and text of Burda et al. 2016: 3,280 passes in eight stages from 1e-3 to 1e-4."""
    assert paper_schedule.total_epochs(paper_schedule.LAST_STAGE) == 3280
    rates = [paper_schedule.learning_rate(stage) for stage in range(8)]
    assert rates == pytest.approx([1e-3, 7.2e-4, 5.2e-4, 3.7e-4, 2.7e-4, 1.9e-4, 1.4e-4, 1e-4])


@pytest.mark.parametrize(("size", "least"), [(0, 1000), (64, 700)])
def test_photos(size, least):
    """No pixel of a test patch is in a training patch: they come from other sides of the photographs."""
    photos = datasets.load("photos", image_size=size)
    assert photos.image_shape == (size or 32, size or 32, 3)
    assert set(photos.train.labels) == set(photos.test.labels) == {0, 1}
    assert len(photos.train) > 10 * len(photos.test) > least
    seen = {image.tobytes() for image in photos.train.images}
    assert not any(image.tobytes() in seen for image in photos.test.images)


def test_photos_of_a_size_that_does_not_fit():
    with pytest.raises(InputError, match="image_size: received 129, expected 8 to 128 for photos"):
        datasets.load("photos", image_size=129)
