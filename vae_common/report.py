"""The comparison as one HTML file that opens without a network: its figures are inside it."""

from __future__ import annotations

import base64
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from vae_common.checkpoints import FRAMEWORKS
from vae_common.configs import MODELS
from vae_common.files import write_atomically
from vae_common.latents import METRICS
from vae_common.verdicts import percent

FAULT_TABLE = Path(__file__).resolve().parent.parent / "results" / "fault_table.json"
"""Fault -> tiers, as the conformance suite wrote it; absent from an installation without the records."""

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>JAX and PyTorch on {{ summary.dataset }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { margin-top: 2.5rem; border-bottom: 2px solid #ddd; }
  th { vertical-align: bottom; }
  .wide { overflow-x: auto; } .wide table { min-width: 40rem; } th.long { min-width: 9rem; }
  table { border-collapse: collapse; margin: .6rem 0 1.2rem; font-variant-numeric: tabular-nums; }
  th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #e4e4e4; }
  td { white-space: nowrap; } td.left, td:first-child { white-space: normal; }
  th:first-child, td:first-child, .left { text-align: left; }
  caption { text-align: left; color: #555; padding-bottom: .3rem; }
  img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
  code, pre { background: #f4f4f4; padding: .1rem .3rem; border-radius: 3px; }
  pre { padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
  blockquote { margin: 1rem 0; padding: .7rem 1rem; border-left: 4px solid #4a6fa5; background: #f3f6fb; }
  blockquote p { margin: .2rem 0; }
  .muted { color: #555; } .word { font-weight: 600; }
  .note { font-size: .9rem; color: #555; text-align: left; white-space: normal; }
</style>
</head>
<body>
<h1>The same autoencoders in JAX and in PyTorch</h1>
<p class="muted">{{ summary.dataset }}: {{ summary.source }}</p>
{% if summary.found %}
<blockquote>
{% for sentence in summary.found %}<p>{{ sentence }}</p>
{% endfor %}
</blockquote>
{% endif %}
{% if summary.claims %}
<h2>What was checked</h2>
{% set over_seeds = summary.claims|selectattr("numbers.margin", "defined")|list %}
{% if over_seeds %}
<div class="wide"><table>
<caption>Equivalence by two one-sided t tests (TOST) at alpha 0.05, {{ over_seeds[0].numbers["seeds a half"] }} seeds a
half: equivalent where the whole 90&nbsp;% interval lies within the margin, different where it lies wholly outside, else
not decided. Differences are PyTorch's mean less JAX's. Power: the chance that truly equal halves are found equivalent.
Minimum detectable difference: the smallest true one that a two-sided t test would find at alpha 0.05 with a power of
80&nbsp;%.</caption>
<tr><th>claim</th><th class="left">model</th><th class="left">outcome</th><th>difference</th><th>90 % interval</th>
<th>margin</th><th class="left">margin from</th><th>power</th><th class="long">minimum detectable difference</th></tr>
{% for claim in over_seeds %}
<tr><td>{{ claim.claim }}</td><td class="left">{{ titles[claim.model] }}</td>
<td class="left word">{{ claim.verdict }}</td>
<td>{{ size(claim, "difference") }}</td>
<td>{{ size(claim, "90 % interval, low") }} to {{ size(claim, "90 % interval, high") }}</td>
<td>{{ size(claim, "margin") }}</td><td class="left">{{ claim["margin from"] }}</td>
<td>{{ "%.2f"|format(claim.numbers.power) }}</td><td>{{ size(claim, "minimum detectable difference") }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% for claim in summary.claims if claim not in over_seeds %}
<p>{{ titles[claim.model] }}: {{ claim.claim }}: <span class="word">{{ claim.verdict }}</span>
{% if claim.get("culprit") %}({{ claim.culprit }}){% endif %}<br>
<span class="muted">{% for key, value in claim.numbers.items() %}{{ label(key) }} {{ "%.5g"|format(value) }}
{{- "; " if not loop.last }}{% endfor %}</span></p>
{% endfor %}
{% endif %}
{% for model, result in summary.models.items() %}
<h2>{{ titles[model] }}</h2>
<div class="wide"><table>
<caption>Test loss per image, mean{% if seeds(result)|length > 1 %} and standard deviation over
{{ seeds(result)|length }} seeds{% else %} of seed {{ seeds(result)[0] }}{% endif %}.
{% if halves|length > 1 %}Differences are PyTorch's mean less JAX's, relative to JAX's{% if seeds(result)|length > 1 %},
{{ "over the same seeds, paired" if result.losses.total_nats.verdict.paired else "over independent seeds" }}{% endif %}.
{% endif %}
<br>Reconstruction: {{ result.reconstruction_unit }}. KL: {{ result.kl_unit }}.</caption>
<tr><th>term</th>{% for name in halves %}<th>{{ names[name] }}</th>{% endfor %}
{% if halves|length > 1 %}<th>difference</th>{% if seeds(result)|length > 1 %}<th>90 % interval</th>
<th>margin</th><th class="long">minimum detectable difference (alpha&nbsp;0.05, power&nbsp;80&nbsp;%)</th>
<th class="left">outcome</th>
{% endif %}{% endif %}</tr>
{% for term, values in result.losses.items() if values[halves[0]].mean %}
<tr><td>{{ label(term) }}</td>
{% for name in halves %}<td>{{ "%.4f"|format(values[name].mean) }}
{% if values[name].std is not none %}&plusmn; {{ "%.4f"|format(values[name].std) }}{% endif %}</td>{% endfor %}
{% if halves|length > 1 and values.verdict %}{% set found = values.verdict %}
<td>{{ percent(found.difference_relative) }}</td>
{% if seeds(result)|length > 1 %}
<td>{{ percent(found.interval_90_percent[0]) }} to {{ percent(found.interval_90_percent[1]) }}</td>
<td>{{ percent(found.margin, false) }}</td><td>{{ percent(found.minimum_detectable_difference, false) }}</td>
<td class="left word">{{ found.outcome }}</td>{% endif %}{% endif %}</tr>
{% endfor %}
</table></div>
{% if halves|length > 1 %}
<div class="wide"><table>
<caption>How alike the latent means of the same test images are, one half against the other.
{% if seeds(result)|length > 1 %}The yardstick: two seeds of one half, which are two equally good trainings.{% endif %}
</caption>
<tr><th>metric</th>{% for seed in seeds(result)[:6] %}<th>seed {{ seed }}</th>{% endfor %}
{% for name in halves if result.latents_between_seeds[name] %}<th>two seeds of<br>{{ names[name] }}</th>{% endfor %}
<th class="left">what it says</th></tr>
{% for metric in result.latents_between_halves[0] %}<tr><td>{{ label(metric) }}</td>
{% for pair in result.latents_between_halves[:6] %}<td>{{ number(pair[metric]) }}</td>{% endfor %}
{% for name in halves if result.latents_between_seeds[name] %}
<td>{{ spread(result.latents_between_seeds[name], metric) }}</td>{% endfor %}
<td class="note">{{ said(metric) }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
<div class="wide"><table>
<caption>The latent means of each half by themselves{% if seeds(result)|length > 1 %}, mean and standard deviation over
seeds{% endif %}.</caption>
<tr><th>metric</th>{% for name in halves %}<th>{{ names[name] }}</th>{% endfor %}<th class="left">what it says</th></tr>
{% for metric in result.latents_of_each_half[halves[0]][0] %}
<tr><td>{{ label(metric) }}</td>
{% for name in halves %}<td>{{ spread(result.latents_of_each_half[name], metric) }}</td>{% endfor %}
<td class="note">{{ said(metric) }}</td></tr>
{% endfor %}
</table></div>
{% for figure, source in pictures[model].items() %}
<img src="{{ source }}" alt="{{ titles[model] }}: {{ figure|replace('_', ' ') }}">
{% endfor %}
{% endfor %}
{% if summary.claims and faults %}
<h2>What the checks can see</h2>
<table>
<caption>Faults planted in one half by the conformance suite, and the tiers that noticed each.</caption>
<tr><th>fault</th><th class="left">planted in JAX</th><th class="left">planted in PyTorch</th></tr>
{% for fault, caught in faults.items() %}
<tr><td>{{ fault }}</td><td class="left">{{ caught.jax|join(" ") }}</td>
<td class="left">{{ caught.torch|join(" ") }}</td>
</tr>
{% endfor %}
</table>
{% endif %}
<h2>How this was made</h2>
<pre>{{ command }}</pre>
<div class="wide"><table>
<tr><th></th>{% for name in halves %}<th class="left">{{ names[name] }}</th>{% endfor %}</tr>
{% for key in summary.environment[halves[0]] %}
<tr><td>{{ label(key) }}</td>
{% for name in halves %}<td class="left">{{ summary.environment[name].get(key, "") or "none" }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
</body>
</html>
"""


def write(path: Path, summary: Mapping[str, Any], pictures: Mapping[str, Mapping[str, Path]]) -> None:
    """Writes the report of `experiments.compare`'s summary and its figures (model -> name -> PNG)."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = environment.from_string(_TEMPLATE).render(
        summary=summary,
        names=FRAMEWORKS,
        titles={model: entry.class_name for model, entry in MODELS.items()},
        halves=list(summary["environment"]),
        faults=json.loads(FAULT_TABLE.read_text(encoding="utf-8")) if FAULT_TABLE.exists() else {},
        label=_label,
        seeds=_seeds,
        size=_size,
        number=_number,
        spread=_spread,
        percent=percent,
        said=lambda metric: METRICS.get(metric, ""),
        command=shlex.join(summary["command"]),
        pictures={
            model: {name: _data_uri(picture) for name, picture in drawn.items()} for model, drawn in pictures.items()
        },
    )
    write_atomically(path, text.encode(errors="backslashreplace"))


def _seeds(result: Mapping[str, Any]) -> list[str]:
    """The seed of each pair of runs, or the pair of seeds where the halves have their own."""
    return [" and ".join(dict.fromkeys(map(str, pair))) for pair in zip(*result["seeds"].values())]


def _size(claim: Mapping[str, Any], key: str) -> str:
    """A claim's number, in per cent where it is relative to the first half's mean."""
    relative = "difference, relative" in claim["numbers"]
    value = claim["numbers"][f"difference, {'relative' if relative else 'absolute'}" if key == "difference" else key]
    signed = key.startswith(("difference", "90"))
    return percent(value, signed) if relative else f"{value:{'+' if signed else ''}.4f}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _spread(described: Sequence[Mapping[str, float | None]], metric: str) -> str:
    """Mean and standard deviation over seeds; of what is counted the range."""
    values = [value for seed in described if (value := seed.get(metric)) is not None]
    if not values:
        return "not defined"
    if metric == "active_units":
        return " to ".join(str(int(value)) for value in dict.fromkeys((min(values), max(values))))
    over = f" \u00b1 {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{over}"


def _label(key: str) -> str:
    """A summary's key as a person reads it."""
    words = key.removesuffix("_nats").split("_")
    return " ".join({"kl": "KL", "cka": "CKA", "rsa": "RSA", "knn": "k-NN"}.get(word, word) for word in words)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
