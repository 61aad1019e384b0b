"""How many inputs each test of bad and odd input tries: results/inputs.md, as the tests themselves have it."""

import ast
import subprocess
import sys
from collections import Counter

from tests.conftest import ROOT

FILES = (
    "test_silent", "test_ambient", "test_files", "test_stopping", "test_system_calls", "test_kill",
    "test_refused_early", "test_bad_input", "test_no_traceback", "test_messages", "test_what_people_bring", "test_fuzz",
)  # fmt: skip
TABLE = ROOT / "results" / "inputs.md"
HEAD = """# What is tried to break it

Each row is a test, with the cases that it is run on (a case may try several inputs, and most are tried in both halves).
`python -m pytest tests/cli/test_inputs.py --record` writes this table; without `--record` it
is held against the tests.

| kind | test | cases |
|---|---|---|
"""


def table() -> str:
    """The table, from what pytest collects."""
    paths = [str(next((ROOT / "tests").rglob(f"{name}.py")).relative_to(ROOT)) for name in FILES]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", *paths]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    items = [line.split("::", 1) for line in result.stdout.splitlines() if "::" in line]
    cases = Counter((path, test.partition("[")[0]) for path, test in items)
    rows = []
    for path in paths:
        kind = ast.get_docstring(ast.parse((ROOT / path).read_text())).splitlines()[0].rstrip(".")
        own = [(test, count) for (place, test), count in cases.items() if place == path]
        rows += [f"| {kind} | {test.removeprefix('test_').replace('_', ' ')} | {count} |" for test, count in own]
    rows.append(f"| all | {len(cases)} tests | {sum(cases.values()):,} |")
    return HEAD + "\n".join(rows) + "\n"


def test_the_table_is_of_these_tests(pytestconfig):
    found = table()
    if pytestconfig.getoption("record"):
        TABLE.write_text(found)
    assert TABLE.read_text() == found
