"""What a report says first: the sentence for one seed, three, twelve, and for halves that do differ."""

import numpy as np
import pytest

from vae_common import progress
from vae_common.comparison import compare, report, verdicts
from vae_common.comparison.verdicts import Verdict

pytestmark = pytest.mark.quick

DRAW = np.random.default_rng(3)


def losses(seeds, spread, shift=0.0):
    """Both halves' totals over the same seeds: what seeds change is shared, `spread` is not."""
    shared = 100 + DRAW.normal(size=seeds)
    return shared + spread * DRAW.normal(size=seeds), shared * (1 + shift) + spread * DRAW.normal(size=seeds)


def said(seeds, spread, shift=0.0, margin=0.001, paired=True, exact=False):
    """The verdict and its sentence; `exact` leaves no chance in the mean difference."""
    a, b = losses(seeds, spread, shift)
    if exact:
        b = b - b.mean() + a.mean() * (1 + shift)
    verdict = verdicts.judge(list(a), list(b), margin, paired)
    return verdict, verdicts.sentence("VAE", "total_nats", verdict)


def test_one_seed():
    verdict = verdicts.judge([100.0], [100.034], 0.001, True)
    assert verdicts.sentence("VAE", "total_nats", verdict) == (
        "VAE, test total: not decided. The difference is +0.034 % (PyTorch minus JAX, relative to JAX) for one seed, "
        "which says nothing of other seeds; with two or more there is an interval."
    )


def test_three_seeds_that_are_too_few():
    verdict, sentence = said(3, 0.1)
    assert verdict.outcome == "not decided"
    assert f"{verdict.seeds_needed} would show equal halves equivalent in 80% of comparisons" in sentence
    assert verdict.seeds_needed > 3
    assert "3 paired seeds" in sentence


def test_twelve_seeds():
    verdict, sentence = said(12, 0.02)
    assert verdict.outcome == "equivalent"
    low, high = (verdicts.percent(edge) for edge in verdict.interval)
    assert sentence == (
        f"VAE, test total: equivalent. The difference is {verdicts.percent(verdict.difference)} (PyTorch minus JAX, "
        f"relative to JAX; 12 paired seeds), 90 % interval {low} to {high}, within the margin of 0.100 %."
    )


@pytest.mark.parametrize(("shift", "outcome"), [(0.005, "different"), (-0.005, "different"), (0.001, "not decided")])
def test_halves_that_differ_by_a_planted_amount(shift, outcome):
    """The interval holds what was planted; on the margin's edge nothing is decided, and not for want of seeds."""
    verdict, sentence = said(30, 0.01, shift, exact=True)
    assert verdict.outcome == outcome
    assert verdict.difference == pytest.approx(shift)
    assert verdict.interval[0] < shift < verdict.interval[1]
    assert ("wholly outside the margin" if outcome == "different" else "lies near the margin") in sentence


def test_the_interval_holds_what_was_planted_in_nine_of_ten():
    held = [said(6, 0.05, 0.002)[0].interval for _ in range(600)]
    share = np.mean([low < 0.002 < high for low, high in held])
    assert share == pytest.approx(0.9, abs=0.04)


def test_independent_seeds_are_said_to_be():
    assert "12 independent seeds a half" in said(12, 0.02, paired=False, margin=0.02)[1]


def test_a_term_that_is_always_zero_has_no_verdict():
    assert verdicts.judge([0.0, 0.0], [0.0, 0.0], 0.02, True) is None


def test_records_are_read_back():
    for verdict in (said(3, 0.1)[0], verdicts.judge([100.0], [101.0], 0.001, True), None):
        again = verdicts.from_record(verdicts.as_record(verdict))
        assert again == verdict
    assert verdicts.as_record(said(3, 0.1)[0])["power"] == 0.8


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00034, "+0.034 %"), (-0.2, "-20.000 %"), (2.4e-7, "+0.000024 %"), (1e-30, "+0.0000000000 %"), (0, "+0.000 %")],
)
def test_per_cent(value, text):
    assert verdicts.percent(value) == text


def test_comparisons_carry_verdicts():
    tests = {
        name: [{"total_nats": v, "reconstruction_nats": v, "kl_nats": 0.0} for v in of]
        for name, of in zip(("jax", "torch"), losses(12, 0.02))
    }
    compared = compare.loss_comparison(tests, True, verdicts.PAIRED_MARGINS)
    assert compared["total_nats"]["verdict"]["outcome"] == "equivalent"
    assert compared["kl_nats"]["verdict"] is None
    (sentence,) = compare.found_sentences({"vae": {"losses": compared}})
    assert sentence.startswith("VAE, test total: equivalent.")
    alone = compare.loss_comparison({"jax": tests["jax"]}, True, verdicts.PAIRED_MARGINS)
    assert compare.found_sentences({"vae": {"losses": alone}}) == []


def test_metrics_are_explained_and_counts_are_integers():
    from vae_common.metrics.descriptors import METRICS

    described = [{"active_units": 2, "knn_accuracy": 0.5}, {"active_units": 3, "knn_accuracy": 0.7}]
    assert report._mean_and_deviation(described, "active_units") == "2 to 3"
    assert report._mean_and_deviation(described[:1], "active_units") == "2"
    assert report._mean_and_deviation(described, "knn_accuracy") == "0.6000 \u00b1 0.1414"
    assert report._mean_and_deviation(described, "rsa") == "not defined"
    assert all(20 < len(metric.says) < 90 for metric in METRICS.values())


def test_progress_where_there_is_no_terminal(capsys, monkeypatch):
    """A line every half minute, with what is left; none for what is over before."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress("jax vae seed 0", 100, "epoch", done=40) as bar:
        for _ in range(30):
            clock[0] += 10
            bar.update(note="loss 1.50")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "jax vae seed 0: 43 of 100 epochs, 9:30 left, loss 1.50"
    with progress.Progress("short", 3, "epoch") as bar:
        bar.update()
    assert not capsys.readouterr().err
    assert progress.clock(3723) == "1:02:03"
    assert list(progress.counted("abc", "x", 3, "letter")) == ["a", "b", "c"]


def test_verdicts_are_frozen():
    with pytest.raises(AttributeError):
        Verdict("equivalent", 0.0, 2, True, None, 0.1, None, None).outcome = "different"
