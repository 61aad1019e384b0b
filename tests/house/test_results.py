"""The records: their page says what they say themselves, and none is without a row."""

from scripts import records
from tests.conftest import ROOT


def test_the_page_is_the_records_own():
    assert (ROOT / "results" / "README.md").read_text(encoding="utf-8") == records.page()


def test_every_record_has_a_row():
    found = {str(path.relative_to(records.RESULTS)) for path in records.RESULTS.rglob("*.json")}
    assert found - {"conformance.json", "weight_hashes.json"} == set(records.SHOWS)
