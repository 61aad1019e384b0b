"""The suite proves itself: every planted fault, in each half in turn and some in both, is caught by its tier.

A test ends with the first check that shows it. The table fault x tier is
vae_common/comparison/fault_table.json; `--record` runs all tiers on every fault and writes it anew.
"""

import contextlib
import json

import numpy as np
import pytest

from tests.conformance.faults import FAULTS
from tests.conformance.faulty_adam import jax_adam, torch_adam
from tests.conformance.planting import Fault, planted
from tests.conformance.suite import assert_conformant, images_for, tiny_config
from tests.conftest import HALVES, ROOT
from vae_common.conformance.checks import TIERS
from vae_common.conformance.engine.faults import everywhere
from vae_common.conformance.lockstep import tier_checks

pytestmark = pytest.mark.usefixtures("remembering_reference")
TABLE = ROOT / "vae_common" / "comparison" / "fault_table.json"


def checks(config):
    return tier_checks(HALVES, config, images_for(config), steps=6)


@pytest.mark.parametrize(
    ("fault", "guilty"),
    [(fault, guilty) for fault in FAULTS for guilty in (*HALVES, *["both"] * fault.both)],
    ids=lambda value: getattr(value, "name", value),
)
def test_caught(fault, guilty, request):
    """The first tier that fails is the fault's, with checks that name the guilty half and not the other."""
    record, failed, named = request.config.getoption("--record"), [], set()
    planted_in = tuple(HALVES) if guilty == "both" else (guilty,)
    shown = False
    with contextlib.ExitStack() as stack, np.errstate(all="ignore"):
        for framework in planted_in:
            stack.enter_context(planted(fault, HALVES[framework]))
        for check in checks(tiny_config(**fault.config)):
            if not check.passed:
                failed.append(check)
                accused = {name for name in HALVES if name in check.name}
                named |= accused if check.tier == fault.tier and len(accused) == 1 else set()
                shown = named == set(planted_in)
            if shown and not record:
                break
    tiers = [tier for tier in TIERS if tier in {check.tier for check in failed}]
    assert shown, f"caught by {tiers} only"
    assert tiers[0] == fault.tier
    request.config.stash.setdefault(KEY, {}).setdefault(fault.name, {})[guilty] = tiers


KEY: pytest.StashKey = pytest.StashKey()


@pytest.mark.parametrize("framework", HALVES)
def test_a_right_adam_of_our_own_is_not_caught(framework):
    """The negative control of the planted optimisers: with nothing wrong they pass."""
    right = Fault("none", "", lambda half, f: everywhere(half, "adam", (jax_adam if f.jax else torch_adam)()))
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
        for guilty in (*HALVES, *["both"] * fault.both):
            assert committed[fault.name][guilty][0] == fault.tier, (fault.name, guilty)
