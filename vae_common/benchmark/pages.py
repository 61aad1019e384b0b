"""Several benchmarks' records (machines, versions) side by side, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from vae_common.benchmark.records import Record
from vae_common.benchmark.results import read_results
from vae_common.benchmark.verdict import main_summary, name_of
from vae_common.errors import InputError
from vae_common.files import read_json

TEMPLATE = "side_by_side.html.jinja"
_HERE = Path(__file__).parent


def page(paths: Sequence[Path]) -> str:
    """The page's HTML. InputError where a record is none, or none has times."""
    columns: list[dict[str, Any]] = []
    rows: dict[str, tuple[str, dict[int, dict[str, str]]]] = {}
    for place, path in enumerate(paths):
        held, records = read_json(path, "beside"), read_results(path, "beside")
        columns.append(_column(path, held, records))
        for record in records:
            if main_summary(record) is not None:
                rows.setdefault(record.key, (name_of(record), {}))[1][place] = _cell(record)
    if not rows:
        raise InputError("beside: received records without times; expected benchmark.json of finished benchmarks")
    loader = jinja2.FileSystemLoader(_HERE)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, loader=loader)
    text = environment.get_template(TEMPLATE).render(
        columns=columns, rows=sorted(rows.values(), key=lambda row: row[0])
    )
    return text


def _column(path: Path, held: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    machine = held.get("machine", {})
    environments = [record.environment for record in records if record.environment is not None]
    versions = dict.fromkeys(environment.get("framework", "") for environment in environments)
    threads = dict.fromkeys(environment.get("threads", "") for environment in environments)
    return {
        "path": str(path),
        "machine": f"{machine.get('cpu', 'unknown')}, {machine.get('cores', '?')} cores",
        "instructions": " ".join(machine.get("instructions", [])) or "not recorded",
        "versions": "; ".join(filter(None, versions)),
        "threads": ", ".join(filter(None, threads)) or "not recorded",
        "commit": machine.get("commit") or "not recorded",
        "notes": held.get("notes", []),
    }


def _cell(record: Record) -> dict[str, str]:
    summary = main_summary(record)
    assert summary is not None
    over = "" if record.step_over_turns is None else f"{record.step_over_turns.median:.2f}"
    varies = "" if summary.variation is None else f"{summary.variation:.1%}"
    return {"milliseconds": f"{1e3 * summary.median:,.2f}", "over": over, "varies": varies}
