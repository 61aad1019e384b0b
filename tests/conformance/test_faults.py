"""The suite proves itself: every planted fault, in each half in turn, is caught by the tier named for it.

A test ends with the first check that shows it. The table fault x tier is results/fault_table.json; `--record` runs all
tiers on every fault and writes it anew.
"""

import json

import numpy as np
import pytest

from tests.conformance.adams import jax_adam, torch_adam
from tests.conformance.faults import FAULTS
from tests.conformance.plants import Fault, planted
from tests.conformance.suite import assert_conformant, images_for, tiny_config
from tests.conftest import HALVES, ROOT
from vae_common import comparison
from vae_common.tiers import TIERS

TABLE = ROOT / "results" / "fault_table.json"


def checks(config):
    return comparison.tier_checks(HALVES, config, images_for(config), steps=6)


@pytest.mark.parametrize("framework", HALVES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_caught(fault, framework, request):
    """A check of the fault's tier fails that names the guilty half, and not the other."""
    record, failed = request.config.getoption("--record"), []
    (other,) = set(HALVES) - {framework}
    with planted(fault, HALVES[framework]), np.errstate(all="ignore"):
        for check in checks(tiny_config(**fault.config)):
            failed += [] if check.passed else [check]
            guilty = not check.passed and framework in check.name and other not in check.name
            if guilty and check.tier == fault.tier and not record:
                return
    assert record, f"caught by {sorted({check.tier for check in failed})} only"
    caught = request.config.stash.setdefault(KEY, {})
    caught.setdefault(fault.name, {})[framework] = [tier for tier in TIERS if tier in {check.tier for check in failed}]


KEY: pytest.StashKey = pytest.StashKey()


@pytest.mark.parametrize("framework", HALVES)
def test_a_right_adam_of_our_own_is_not_caught(framework):
    """The negative control of the planted optimisers: with nothing wrong they pass."""
    right = Fault("none", "", lambda half, f: [(half.training, "adam", (jax_adam if f.jax else torch_adam)())])
    with planted(right, HALVES[framework]):
        assert_conformant(checks(tiny_config()), "float64")


def test_nothing_is_left_planted():
    assert_conformant(checks(tiny_config()), "float64")


def test_the_table_is_the_committed_one(request):
    """Every fault is in it, noticed by its tier in both halves. With --record all tiers run, and it is written anew."""
    if request.config.getoption("--record"):
        caught = request.config.stash.get(KEY, {})
        table = {fault.name: {"tier": fault.tier, **caught[fault.name]} for fault in FAULTS}
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
    committed = json.loads(TABLE.read_text())
    assert list(committed) == [fault.name for fault in FAULTS]
    for fault in FAULTS:
        assert committed[fault.name]["tier"] == fault.tier
        for framework in HALVES:
            assert fault.tier in committed[fault.name][framework], (fault.name, framework)
