"""The suite proves itself: every planted fault, in each half in turn, is caught by the tier named for it.

The table fault x tier is results/fault_table.json; `--record` writes it anew.
"""

import json

import numpy as np
import pytest

from tests.conformance.adams import jax_adam, torch_adam
from tests.conformance.faults import FAULTS
from tests.conformance.plants import Fault, planted
from tests.conformance.suite import assert_conformant, failing_tiers, images_for, tiny_config
from tests.conftest import HALVES, ROOT
from vae_common import comparison
from vae_common.tiers import TIERS

TABLE = ROOT / "results" / "fault_table.json"


def checks(config):
    return comparison.tier_checks(HALVES, config, images_for(config), steps=6)


@pytest.mark.parametrize("framework", HALVES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_caught(fault, framework, request):
    config = tiny_config(**fault.config)
    with planted(fault, HALVES[framework]), np.errstate(all="ignore"):
        failed = failing_tiers(checks(config))
    assert fault.tier in failed, f"caught by {list(failed)} only"
    # Where a tier compares a half with the reference, the half that is named is the guilty one.
    assert framework in failed[fault.tier].name
    caught = request.config.stash.setdefault(KEY, {})
    caught.setdefault(fault.name, {})[framework] = [tier for tier in TIERS if tier in failed]


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
    """With --record it is written anew; without, every fault is in it, caught by the tier that caught it now."""
    caught = request.config.stash.get(KEY, {})
    if len(caught) < len(FAULTS) or any(len(of) < len(HALVES) for of in caught.values()):
        pytest.skip("only some of the faults were run")
    table = {fault.name: {"tier": fault.tier, **caught[fault.name]} for fault in FAULTS}
    if request.config.getoption("--record"):
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
    committed = json.loads(TABLE.read_text())
    assert list(committed) == list(table)
    for name, found in table.items():
        assert committed[name]["tier"] == found["tier"]
        for framework in HALVES:
            # Tiers further down may differ by a hair between machines; the first one that sees it may not.
            assert committed[name][framework][0] == found[framework][0], (name, framework)
