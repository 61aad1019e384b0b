"""The README holds no unfilled place, and what it names exists."""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"@[A-Z0-9]+@", README)


def test_links_and_tests_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    known = README.partition("### Known differences")[2].partition("\n## ")[0]
    pinned_by = "".join(line.rsplit("|", 2)[1] for line in known.splitlines() if line.endswith("|"))
    assert "`test_" in pinned_by
    for name in re.findall(r"`(test_\w+)`", pinned_by):
        assert f"def {name}(" in tests, name
    for name in re.findall(r"`(test_\w+\.py)`", README):
        assert list((ROOT / "tests").rglob(name)), name


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if line.startswith("python3 -m venv") and "pytest" in line)
    assert command in (ROOT / ".ci" / "run").read_text()
