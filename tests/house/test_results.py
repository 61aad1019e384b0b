"""The records: their page says what they say themselves, and none is without a row."""

import importlib

import pytest

from scripts import records
from tests.conftest import ROOT
from vae_common.cli.command_line import outcome


def writes_record(path):
    """Whether a script takes a file for its record."""
    return "    output: Path | None = None" in path.read_text(encoding="utf-8")


def test_the_page_is_the_records_own():
    assert (ROOT / "results" / "README.md").read_text(encoding="utf-8") == records.page()


def test_every_record_has_a_row():
    found = {str(path.relative_to(records.RESULTS)) for path in records.RESULTS.rglob("*.json")}
    assert found - {"conformance.json", "weight_hashes.json"} == set(records.SHOWS)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if writes_record(path)))
def test_where_no_record_can_be_written_nothing_is_measured(name, tmp_path, capsys):
    command = importlib.import_module(f"scripts.{name}")
    assert outcome(command, ["--output", str(tmp_path / "none" / "record.json")]) == 2
    assert "expected a file in a folder that exists" in capsys.readouterr().err
