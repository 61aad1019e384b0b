"""What a comparison claims: true input holds, and one false input for each claim does not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.configs import small_config
from tests.conftest import HALVES
from vae_common.comparison.claims import StructureClaim, failed
from vae_common.comparison.options import ClaimOptions
from vae_common.comparison.over_seeds import independent, neighbourhoods, paired, read_pilot
from vae_common.errors import InputError
from vae_common.metrics.table import title

DRAW = np.random.default_rng(0)
LATENTS = DRAW.normal(size=(24, 60, 2))


def losses(kl=5.0, count=12, spread=0.01):
    return [
        {"total_nats": 150 + k, "reconstruction_nats": 145.0 * (1 + spread * e), "kl_nats": k}
        for k, e in ((kl * (1 + spread * DRAW.normal()), DRAW.normal()) for _ in range(count))
    ]


def descriptors(count=12, **shift):
    middle = {
        "knn_accuracy": 0.7, "trustworthiness": 0.8, "silhouette": 0.1, "aggregate_posterior_kl_nats": 0.3,
        "active_units": 2.0,
    }  # fmt: skip
    noise = {"active_units": 0.0}
    return [
        {name: v + shift.get(name, 0) + noise.get(name, 0.005) * DRAW.normal() for name, v in middle.items()}
        for _ in range(count)
    ]


def verdicts(second=None, described=None, latents=LATENTS, model="vae", **options):
    found = independent(
        model,
        {"jax": losses(), "torch": second or losses()},
        {"jax": descriptors(), "torch": described or descriptors()},
        latents,
        **options,
    )
    return {getattr(claim, "metric", "latents"): claim.verdict for claim in found}, found


def test_halves_that_are_alike_hold_every_claim():
    found, claimed = verdicts()
    assert list(found) == [
        "total_nats", "reconstruction_nats", "kl_nats", "trustworthiness", "knn_accuracy", "silhouette", "active_units",
        "aggregate_posterior_kl_nats", "latents",
    ]  # fmt: skip
    assert list(found.values()) == ["equivalent"] * 8 + ["no alarm"]
    assert not failed(claimed)
    assert claimed[0].statement == "independent seeds, total"
    assert claimed[-1].statement == "independent seeds, latents by the energy test (gate: mutual neighbours)"
    metrics = {"mutual_neighbours", "rsa", "linear_cka", "procrustes_disparity", "axis_correlation"}
    assert claimed[-1].tests.keys() == metrics
    assert all(0 < test.p <= 1 for test in claimed[-1].tests.values())


def test_a_wrong_kl_passes_on_the_total_and_fails_on_the_kl():
    """A doubled KL weight moves the total by less than its spread and the KL by a quarter."""
    found, claimed = verdicts(second=losses(kl=3.75))
    assert found["kl_nats"] == "different"
    assert failed(claimed)


@pytest.mark.parametrize(
    ("metric", "shift"),
    [
        ("knn_accuracy", 0.08), ("trustworthiness", -0.04), ("silhouette", 0.03), ("aggregate_posterior_kl_nats", 0.05),
        ("active_units", -1),
    ],
)  # fmt: skip
def test_a_shifted_descriptor_is_different(metric, shift):
    _, claimed = verdicts(described=descriptors(**{metric: shift}))
    (claim,) = failed(claimed)
    assert claim.verdict == "different"
    assert claim.metric == metric


def test_another_structure_of_the_latents_raises_the_alarm():
    shared = DRAW.normal(size=(2, 1, 60, 2))
    apart = (shared + 0.2 * DRAW.normal(size=(2, 12, 60, 2))).reshape(24, 60, 2)
    found, claimed = verdicts(latents=apart)
    assert found["latents"] == "different"
    assert failed(claimed)
    mixed = apart[np.arange(24).reshape(2, 12).T.ravel()]  # the two structures in both halves
    assert verdicts(latents=mixed)[0]["latents"] == "no alarm"


def test_two_runs_a_half_can_raise_no_alarm_and_do_not_show_it():
    found = neighbourhoods("vae", LATENTS[:4], 2)
    assert found.verdict == "not decided"
    assert failed([found])


def test_an_autoencoder_is_judged_by_what_has_no_scale():
    assert neighbourhoods("ae", LATENTS, 12).tests.keys() == {"mutual_neighbours", "rsa"}


def test_an_inflated_spread_does_not_widen_the_margin():
    found, _ = verdicts(second=losses(spread=0.3))
    assert {found[term] for term in ("total_nats", "reconstruction_nats", "kl_nats")} == {"not decided"}


def test_a_pilot_sets_the_margins():
    """Both halves twice as wide as they were: these runs would widen their own margin, the pilot's stays."""
    pilot = {name: [a | b for a, b in zip(losses(spread=0.002), descriptors())] for name in HALVES}
    wide = losses(spread=0.02)
    _, own = verdicts(second=wide)
    _, frozen = verdicts(second=wide, pilot=pilot)
    assert frozen[0].result.margin < 0.5 * own[0].result.margin
    assert "earlier seeds" in frozen[0].margin_from
    assert "these very seeds" in own[0].margin_from
    assert frozen[3].margin_from == "fixed"


def test_pilots_that_are_none(tmp_path):
    config = replace(small_config(), training=replace(small_config().training, randomness="native"))
    path = tmp_path / "summary.json"
    model = {
        "config": config.to_json(), "seeds": {"jax": [0, 1], "torch": [2, 3]},
        "losses_by_seed": {name: losses(count=2) for name in HALVES},
        "latents_of_each_half": {name: descriptors(count=2) for name in HALVES},
    }  # fmt: skip
    summary = {"check": "independent", "models": {"vae": model}}
    path.write_text(json.dumps(summary))
    assert len(read_pilot(path, replace(config, seed=9), [9, 10], "all:1")["torch"]) == 2
    for changed, seeds, said in (
        (config, [3, 4], r"shares seeds \[3\]"),
        (replace(config, image_shape=(3, 3, 1)), [9], "another experiment"),
        (replace(config, model="ae"), [9], "no comparison's summary.json with ae"),
    ):
        with pytest.raises(InputError, match=said):
            read_pilot(path, changed, seeds, "all:1")
    path.write_text(json.dumps(summary | {"data": "all:2"}))
    with pytest.raises(InputError, match="was made on other data"):
        read_pilot(path, config, [9], "all:1")
    model["losses_by_seed"]["jax"][0]["kl_nats"] = float("nan")
    path.write_text(json.dumps(summary))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_pilot(path, config, [9], "all:1")
    with pytest.raises(InputError, match="without --check independent"):
        ClaimOptions("paired", pilot=path)


def test_an_autoencoder_makes_no_claim_on_a_kl():
    zero = [{"total_nats": 100.0 + i, "reconstruction_nats": 100.0 + i, "kl_nats": 0.0} for i in range(3)]
    assert [claim.statement for claim in paired("ae", {"jax": zero, "torch": zero})] == [
        "paired seeds, total",
        "paired seeds, reconstruction",
    ]


@pytest.mark.parametrize(("term", "factor"), [("total", 1.005), ("reconstruction", 0.995), ("kl", 1.1)])
def test_paired_seeds_see_half_a_percent(term, factor):
    first = losses(count=6)
    assert not failed(paired("vae", {"jax": first, "torch": first}))
    wrong = [run | {f"{term}_nats": factor * run[f"{term}_nats"]} for run in first]
    (claim,) = failed(paired("vae", {"jax": first, "torch": wrong}))
    assert claim.statement == f"paired seeds, {title(f'{term}_nats')}"


def test_paired_halves_are_equivalent(small):
    """S1 in small: three seeds in float32."""
    found = {}
    for name, half in HALVES.items():
        runs = []
        for seed in range(3):
            config = small_config(seed=seed, dtype="float32")
            state = half.fit(half.create_state(config), small)
            terms = half.evaluate(state.model, small.test.images, config)
            runs.append({f"{term}_nats": values.mean() for term, values in terms.named().items()})
        found[name] = runs
    assert not failed(paired("vae", found))


def test_not_shown_does_not_hold():
    verdicts = ("equal", "equivalent", "no alarm", "not decided", "different")
    claims = [StructureClaim("vae", verdict, 1, {}, 0) for verdict in verdicts]
    assert [claim.verdict for claim in failed(claims)] == list(verdicts[3:])
