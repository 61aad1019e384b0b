"""The benchmark's numbers are what they say; how large they are is measured elsewhere."""

import dataclasses
import importlib.util
import json
import math
import statistics

import pytest

from tests.configs import small_config
from tests.conftest import HALVES, ROOT, script
from tests.conftest import process as process_said
from vae_common.backend import load_microbenchmarks, name_of
from vae_common.benchmark import costs, pages, peers, plots, results, running, suites, verdict
from vae_common.benchmark.cases import Case
from vae_common.benchmark.measurement import measure, measure_recipe
from vae_common.benchmark.records import Record, Rounds
from vae_common.config import Config, NetworkConfig, TrainingConfig
from vae_common.errors import InputError

SMALL = Case(hidden=(16,), batch_size=8, rounds=2, images=24)
FLAGS = ("--hidden", 16, "--batch-size", 128, "--rounds", 2, "--executions", "eager")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick suite's folder, and what it printed. Its cases run here; `network` and `a run` have processes."""

    def here(case, programs, check=False):
        if case.framework == "recipe":
            return measure_recipe(HALVES["torch"], case)
        return Record(case) if check else measure(HALVES[case.framework], case, 0.0, lambda: HALVES)

    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_measured", here)
        return folder, script("benchmark", *FLAGS, "--output", "first", cwd=folder)


def test_quick_suite(quick):
    folder, printed = quick
    record = json.loads((folder / "first" / "benchmark.json").read_text())
    assert set(printed["step_over_floor"]) == {"jax", "torch"}
    assert set(printed["times_the_recipe"]) == {"jax auto", "torch eager"}
    assert all((folder / path).exists() for path in printed["figures"])
    assert record["machine"]["cores"] >= 1
    for result in record["results"]:
        assert "error" not in result, result
        if result["case"]["kind"] == "step":
            assert result["step_over_floor"]["n"] == len(result["rounds"]["step_seconds"]) == 2
            assert set(result["start_seconds"]) == {"import", "build", "compile", "first_step", "to_first_step"}
            assert result["environment"]["framework"].startswith(result["case"]["framework"])
        assert (
            result["peak_host_bytes"] > 1e7 if "peak_host_bytes" in result else result["case"]["framework"] == "recipe"
        )


def test_against_a_baseline(quick, monkeypatch):
    """What a second run says of the first; its own measurements are the first's, slower by a tenth."""
    folder, _ = quick
    first = {record.case.key: record for record in results.read_results(folder / "first" / "benchmark.json")}

    def slower(case, programs, check=False):
        record = first[case.key]
        rounds = {kind: [1.1 * seconds for seconds in of] for kind, of in dataclasses.asdict(record.rounds).items()}
        return dataclasses.replace(record, rounds=Rounds(**rounds))

    monkeypatch.setattr(running, "_measured", slower)
    printed = script("benchmark", *FLAGS, "--frameworks", "torch", "--baseline", "first/benchmark.json", cwd=folder)
    assert len(printed["against_baseline"]) == 3  # the step, the epoch, the recipe's
    for compared in printed["against_baseline"].values():
        low, high = compared["interval"]
        assert low <= compared["ratio"] <= high
        assert compared["ratio"] == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--baseline", "none.json"), "baseline: none.json does not exist"),
        (("--executions", "graph", "--device", "cpu"), "received graph on cpu"),
        (("--rounds", 0), "rounds: received 0"),
        (("--precision", "tf32", "--device", "cpu"), "received tf32 on cpu"),
    ],
)
def test_bad_input(tmp_path, flags, said):
    assert said in script("benchmark", *flags, cwd=tmp_path, status=2)


def test_the_ratio_is_paired():
    """A drift that hits both alike leaves the interval narrow; unpaired it would not."""
    then = [1.0, 2.0, 4.0, 8.0]
    found = results.ratio([1.1 * value for value in then], then)
    assert found["ratio"] == pytest.approx(1.1)
    assert found["interval"] == pytest.approx([1.1, 1.1])
    low, high = results.ratio([2.0, 1.0], [1.0, 1.0])["interval"]
    assert low < math.sqrt(2) < high
    assert results.ratio([2.0], [1.0])["interval"] is None


def process(seconds, device="cpu: cpu"):
    """A record as one process makes it, of one round."""
    rounds = Rounds(step_seconds=[seconds], floor_seconds=[1.0], turns_seconds=[0.5], epoch_seconds=[3 * seconds])
    case = Case(batch_size=10, ensemble=2)
    return Record(case, steps=3, rounds=rounds, environment={"device": device})


LOST = Record(Case(batch_size=10, ensemble=2), error="lost")


def test_processes_are_merged():
    merged = results.merged([process(2.0), process(4.0), LOST])
    assert merged.processes == 2
    assert merged.step_seconds.median == merged.step_over_floor.median == 3.0
    assert merged.step_over_turns.median == 6.0
    assert merged.epoch_seconds.median == 9.0
    assert merged.images_per_second == pytest.approx(10 / 3)
    assert results.merged([LOST]) == LOST


def test_a_baseline_is_paired_by_process():
    """Rounds of one process are alike; what an interval has to hold is how processes differ."""
    now, then = (results.merged([process(scale * seconds) for seconds in (1.0, 2.0)]) for scale in (1.5, 1.0))
    compared = results.against([now], [then])[now.key]
    assert compared["paired_by"] == "process"
    assert compared["n"] == 2
    assert compared["ratio"] == compared["over_floor"]["ratio"] == pytest.approx(1.5)
    assert results.against([process(1.0)], [process(2.0)])[now.key]["paired_by"] == "round"
    assert results.against([process(1.0)], [process(1.0, "cuda: H100")]) == {}
    assert results.against([process(1.0)], [LOST]) == {}


def test_a_record_through_json_is_the_record():
    record = results.merged([process(2.0), process(4.0)])
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert "error" not in record.to_json()


@pytest.mark.parametrize("name", ["benchmark-quick-amd", "benchmark-cpu"])
def test_records_of_earlier_versions_are_read(name):
    """Their floor was what is in turn now, and `step_over_parts` what is over the floor now."""
    path = ROOT / "results" / name / "benchmark.json"
    old = json.loads(path.read_text())["results"]
    for record, before in zip(results.read_results(path), old):
        if "step_over_parts" in before:
            found = statistics.median(record.rounds.step_over_floor)
            assert found == pytest.approx(before["step_over_parts"]["median"])
            turns = statistics.median(record.rounds.step_over_turns)
            assert turns == pytest.approx(before["step_over_floor"]["median"])


@pytest.mark.parametrize("model", ["ae", "vae"])
@pytest.mark.parametrize("hidden", [(), (40,), (40, 30)])
def test_model_flops_are_those_that_the_frameworks_count(half, model, hidden):
    """PyTorch counts matrix products and nothing else; XLA counts a few element-wise operations too."""
    config = dataclasses.replace(Case(hidden=hidden, latent_dim=20, model=model).config())
    counted = load_microbenchmarks(half).counted_flops(config)
    ratio = counted / costs.step_flops(config)
    assert ratio == 1 if half is HALVES["torch"] else 1 < ratio < 1.5


def test_both_frameworks_count_convolutions():
    """XLA leaves out what falls on the zeros around an image."""
    network = NetworkConfig(channels=(8, 16), hidden=(), latent_dim=4)
    config = Config(network=network, training=TrainingConfig(batch_size=96))
    ours, theirs = (load_microbenchmarks(half).counted_flops(config) for half in HALVES.values())
    assert 0.8 < ours / theirs < 1


def test_without_a_cpu_jax_counts_none(monkeypatch):
    def none(platform):
        raise RuntimeError(f"Unknown backend {platform}")

    microbenchmarks = load_microbenchmarks(HALVES["jax"])
    monkeypatch.setattr(microbenchmarks.jax, "devices", none)
    assert microbenchmarks.counted_flops(Config()) is None


def test_xla_counts_little_more_at_full_size():
    config = Case().config()
    assert 1 < load_microbenchmarks(HALVES["jax"]).counted_flops(config) / costs.step_flops(config) < 1.05


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_case_in_this_process(half, seeds):
    name = name_of(half)
    case = dataclasses.replace(SMALL, framework=name, ensemble=seeds)
    record = measure(half, case, 0.0, lambda: HALVES)
    assert record.step_seconds.median > 0
    assert (record.ensemble_cost is not None) == (seeds > 1)
    assert record.fastest["products"] in ("jax", "torch", "numpy")
    assert record.part_seconds["backward"] > 0
    assert record.bound_seconds["products"]["numpy"] > 0
    epochs = measure(half, dataclasses.replace(case, kind="epoch"), 0.0, lambda: HALVES)
    assert epochs.images_per_second == pytest.approx(24 * seeds / epochs.epoch_seconds.median)


def test_loss_against_seconds(half):
    case = Case(kind="loss", framework=name_of(half), hidden=(16,), epochs=3)
    curve = measure(half, case, 5.0, lambda: HALVES).test_loss_by_seconds
    assert [seconds for seconds, _ in curve] == sorted(seconds for seconds, _ in curve)
    assert curve[0][0] > 5
    assert curve[-1][1] < curve[0][1]


def test_every_figure_is_drawn(tmp_path, quick):
    """From a record that has all kinds of cases: the quick one's, changed into the full suite's."""
    folder, _ = quick
    record = json.loads((folder / "first" / "benchmark.json").read_text())
    step, epoch = (next(r for r in record["results"] if r["case"]["kind"] == kind) for kind in ("step", "epoch"))
    base = record["base"]

    def like(result, **changes):
        return result | {"case": result["case"] | changes}

    record["results"] += [like(step, batch_size=size, hidden=[16]) for size in (32, 512)]
    record["results"] += [like(epoch, latent_dim=2, hidden=[512], images=size) for size in (1024, 4096, 16384)]
    for field, values in suites.GROWTH.items():
        changed = {"latent_dim": 2, "hidden": [512], "images": suites.GROWTH_IMAGES}
        record["results"] += [like(epoch, **(changed | {field: value})) for value in values]
    curve = {"test_loss_by_seconds": [[1.0, 300.0], [2.0, 200.0]]}
    loss = {"kind": "loss", "epochs": suites.LOSS_EPOCHS, "dataset": base["dataset"]}
    record["results"].append(like(step, **loss) | curve)
    drawn = plots.save_figures(record, tmp_path)
    assert {path.stem for path in drawn} == {"throughput", "parts", "time_to_loss", "growth"}


def test_a_case_that_is_none():
    with pytest.raises(InputError, match="images: received 4, expected at least a batch of 8"):
        dataclasses.replace(SMALL, images=4).config()


NETWORK = (
    "--binarization",
    "dynamic",
    "--output-bias",
    "data_mean",
    "--classes",
    10,
    "--hidden",
    16,
    "--batch-size",
    128,
    "--rounds",
    1,
    "--processes",
    1,
)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network alone, in both halves: its folder and what was printed."""
    folder = tmp_path_factory.mktemp("network")
    return folder, script("benchmark", *NETWORK, "--executions", "eager", "--output", "first", cwd=folder)


def test_any_experiment_is_timed_alone(network):
    """Flags that no case's own fields say: whole epochs, steps over their floor, starts, of both halves."""
    folder, printed = network
    record = json.loads((folder / "first" / "benchmark.json").read_text())
    assert record["suite"] == "network"
    assert next(iter(record)) == "notes"
    for result in record["results"]:
        config = Case.from_json(result["case"]).config()
        assert (config.data.binarization, config.network.hidden) == ("dynamic", (16,))
        assert result["environment"]["threads"] == "1"
    assert set(printed["start_seconds"]) == {"jax auto", "torch eager"}
    assert "nothing can be said" in printed["found"]  # of one process and one round


def test_a_benchmark_that_was_stopped_goes_on(network, monkeypatch):
    """What its log holds is not measured again; a line that was cut short is."""
    folder, _ = network
    stopped = folder / "stopped"
    stopped.mkdir()
    for name in (running.PLAN, running.LOG):
        (stopped / name).write_text((folder / "first" / name).read_text())
    lines = (stopped / running.LOG).read_text().splitlines(keepends=True)
    (stopped / running.LOG).write_text("".join(lines[:2]) + lines[2][:50])
    asked = []

    def failing(case, programs, check=False):
        asked.append(case.kind)
        return Record(case, error="it broke")

    monkeypatch.setattr(running, "_measured", failing)
    printed = script("benchmark", "--resume", "stopped", cwd=folder)
    assert set(asked) == {"network", "warm"}
    assert len(asked) == 3  # the network, and both goes of the warm start
    assert printed["record"] == "stopped/benchmark.json"
    results_ = results.read_results(stopped / "benchmark.json")
    assert [record.error for record in results_] == [None, None, "it broke", "it broke"]


def test_a_run_is_timed(tmp_path):
    """Its own config counts, convolutions and all; they have no floor."""
    flags = ("--epochs", 1, "--channels", 4, "--hidden", 8, "--framework", "torch", "--threads", 1)
    script("train", *flags, "--output", "run", cwd=tmp_path)
    again = ("--run", "run", "--frameworks", "torch", "--executions", "eager", "--rounds", 1, "--processes", 1)
    script("benchmark", *again, "--output", "timed", cwd=tmp_path)
    first, _ = results.read_results(tmp_path / "timed" / "benchmark.json")
    assert first.case.config().network.channels == (4,)
    assert first.step_over_floor is None
    assert first.step_seconds.median > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--suite", "quick", "--binarization", "dynamic"), "suite: received quick with flags that it does not read"),
        (("--suite", "peers"), "peers: received None with the suite peers"),
        (("--peers", "python"), "peers: received 'python' with the suite quick"),
        (("--suite", "peers", "--peers", "nowhere"), "peers: nowhere cannot be run"),
        (("--run", "nowhere"), "nowhere"),
        (("--resume", "nowhere"), "resume: nowhere has no plan.json"),
        (("--beside", "none.json"), "none.json does not exist"),
        (("--threads", 0), "threads: received 0"),
        (("--suite", "recipe", "--hidden", 64), "suite: received recipe with --hidden that it does not read"),
        (("--suite", "peers", "--peers", "python", "--batch-size", 64), "received peers with --batch-size"),
        (("--resume", "nowhere", "--rounds", 2), "resume: received --rounds, expected nothing beside it"),
    ],
)
def test_what_is_refused_before_anything_is_measured(tmp_path, flags, said):
    assert said in process_said("benchmark", *flags, cwd=tmp_path, status=2)
    assert not list(tmp_path.iterdir())


BASE = Case()


def varied(seconds, framework="jax", **changes):
    """A record of steps in three processes, one round each."""
    rounds = Rounds(step_seconds=seconds, floor_seconds=[1.0] * len(seconds), turns_seconds=[1.0] * len(seconds))
    case = Case(framework=framework, execution="auto" if framework == "jax" else "eager")
    record = Record(case, platform="cpu", environment={"threads": changes.get("threads", "2")}, rounds=rounds)
    return results.merged([dataclasses.replace(record, rounds=Rounds(*([[one]] * 4))) for one in seconds])


def test_the_sentence_says_who_is_faster_or_that_nobody_is():
    fast, slow = varied([1.0, 1.01, 0.99]), varied([1.5, 1.52, 1.49], "torch")
    assert "JAX is faster: 1.50 times" in verdict.sentence([fast, slow], BASE)
    assert "not distinguishable" in verdict.sentence([fast, varied([0.8, 1.0, 1.3], "torch")], BASE)
    assert verdict.sentence([fast], BASE) is None
    other = dataclasses.replace(slow, case=dataclasses.replace(slow.case, batch_size=32))
    assert verdict.sentence([fast, other], BASE) is None  # another case


def test_doubtful_records_say_so():
    """Other work, unequal threads, rows that vary: in the record's first line."""
    steady, varying = varied([1.0, 1.01, 0.99]), varied([1.0, 1.5, 2.0], "torch", threads="1")
    assert verdict.notes([steady], {"others_running": 0, "cores": 2, "threads": 2}) == []
    assert verdict.notes([steady], {"others_running": 1, "cores": 2, "threads": 1}) == []
    work, threads, variation = verdict.notes([steady, varying], {"others_running": 3, "cores": 2, "threads": 2})
    said = "3 other threads ran when it began, beside 2 of each half on 2 processors"
    assert work == f"the machine had other work: {said}"
    assert threads == "the halves had unequal threads (torch: 1; jax: 2)"
    assert variation.startswith("more than 5% of variation: PyTorch, eager")


def test_time_to_a_target_over_seeds():
    """The loss that every training reaches; seconds until then, with an interval."""
    curves = {0: [[1.0, 9.0], [2.0, 5.0]], 1: [[1.5, 6.0], [3.0, 4.0]]}
    case = Case(kind="loss", epochs=suites.LOSS_EPOCHS)
    records = [Record(dataclasses.replace(case, seed=n), test_loss_by_seconds=curve) for n, curve in curves.items()]
    apart = Record(dataclasses.replace(case, epochs=20), test_loss_by_seconds=[[0.5, 300.0]])  # of the precisions
    found = verdict.time_to_target([*records, apart], BASE)
    assert found["target_nats"] == 5.0
    assert found["jax auto"]["seconds"] == 2.5
    assert found["jax auto"]["seeds"] == 2
    assert found["jax auto"]["interval"][0] < 2.5 < found["jax auto"]["interval"][1]
    assert verdict.time_to_target(records[:1], BASE) is None


def test_what_some_processes_did_not_count():
    """Energy, where one of them could not read it: the median of those that did."""
    each = [dataclasses.replace(process(1.0), joules_per_image=joules) for joules in (None, {"cpu": 2.0}, {"cpu": 4.0})]
    assert results.merged(each).joules_per_image == {"cpu": 3.0}


def test_an_experiment_is_the_same_wherever_its_data_lie():
    """Keys by which records of two machines are paired."""
    config = small_config()
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir="elsewhere"))
    wider = dataclasses.replace(config, network=dataclasses.replace(config.network, hidden=(99,)))
    first, second, third = (Case.of(of, kind="network").key for of in (config, moved, wider))
    assert first == second != third


def test_records_side_by_side():
    """Of earlier versions too: what they did not record is said to be missing."""
    paths = [ROOT / "results" / name / "benchmark.json" for name in ("benchmark-quick-amd", "benchmark-cpu")]
    page = pages.page(paths)
    assert page.count("benchmark.json</th>") == 2
    assert "JAX: step, vae 512-2, batch 128, float32" in page


def test_peers_are_asked_for_the_same_network():
    """What a peer trains is what the halves of its group train."""
    cases = suites.cases_of("peers", Case(rounds=3), [("jax", "auto"), ("torch", "eager")], False)
    assert {case.framework for case in cases} == {"jax", "torch", "recipe", *peers.PEERS}
    by_experiment = {case.experiment for case in cases}
    assert len(by_experiment) == 2
    for experiment in by_experiment:
        assert {"jax", "torch"} < {case.framework for case in cases if case.experiment == experiment}


@pytest.mark.parametrize("peer", ["keras on jax", "flax recipe"])
def test_a_peer_that_is_at_hand_learns(peer):
    """Those whose packages the tests' environment has; each prints its epochs as one line of JSON."""
    if any(importlib.util.find_spec(name) is None for name in peers.PACKAGES[peer]):
        pytest.skip(f"{peer} is not installed here")
    task = peers.Task(peer, 16, 2, "relu", False, 32, 320, 3)
    found = peers.PEERS[peer](task)
    assert len(found.seconds) == len(found.losses) == 3
    assert found.losses[-1] < found.losses[0]


@pytest.mark.parametrize("suite", suites.SUITES)
@pytest.mark.parametrize("gpu", [True, False])
def test_every_case_of_every_suite_is_one(suite, gpu):
    variants = [("jax", "auto"), ("torch", "graph" if gpu else "eager")]
    cases = suites.cases_of(suite, Case(), variants, gpu)
    assert all(case.checked() for case in cases)
    assert all(Case.from_json(json.loads(json.dumps(dataclasses.asdict(case)))) == case for case in cases)
