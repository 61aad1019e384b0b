"""The comparison as one HTML file that opens without a network: its figures are inside it."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from vae_common import claims
from vae_common.checkpoints import FRAMEWORKS
from vae_common.configs import MODELS
from vae_common.files import write_atomically

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
  table { border-collapse: collapse; margin: .6rem 0 1.2rem; font-variant-numeric: tabular-nums; }
  th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #e4e4e4; }
  td { white-space: nowrap; } td.left, td:first-child { white-space: normal; }
  th:first-child, td:first-child, .left { text-align: left; }
  caption { text-align: left; color: #555; padding-bottom: .3rem; white-space: nowrap; }
  img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
  code, pre { background: #f4f4f4; padding: .1rem .3rem; border-radius: 3px; }
  pre { padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
  .muted { color: #555; } .good { color: #0b6b3a; } .bad { color: #b3261e; }
</style>
</head>
<body>
<h1>The same autoencoders in JAX and in PyTorch</h1>
<p class="muted">{{ summary.dataset }}: {{ summary.source }}</p>
{% if summary.claims %}
<h2>Verdicts</h2>
{% set over_seeds = summary.claims|selectattr("numbers.margin", "defined")|list %}
{% if over_seeds %}
<table>
<caption>Equivalence by TOST at alpha 0.05, {{ over_seeds[0].numbers["seeds a half"] }} seeds a half: the whole interval
lies within the margin.<br>Differences are PyTorch's mean less JAX's; found: the difference that would not pass
in 80 % of such comparisons.</caption>
<tr><th>claim</th><th class="left">model</th><th class="left">verdict</th><th>difference</th><th>90 % interval</th>
<th>margin</th><th class="left">margin from</th><th>power</th><th>found</th></tr>
{% for claim in over_seeds %}
<tr><td>{{ claim.claim }}</td><td class="left">{{ titles[claim.model] }}</td>
<td class="left"><strong class="{{ "bad" if claim in failed else "good" }}">{{ claim.verdict }}</strong></td>
<td>{{ size(claim, "difference") }}</td>
<td>{{ size(claim, "90 % interval, low") }} to {{ size(claim, "90 % interval, high") }}</td>
<td>{{ size(claim, "margin") }}</td><td class="left">{{ claim["margin from"] }}</td>
<td>{{ "%.4f"|format(claim.numbers.power) }}</td><td>{{ size(claim, "difference found in 80 %") }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% for claim in summary.claims if claim not in over_seeds %}
<p>{{ titles[claim.model] }}: {{ claim.claim }}:
<strong class="{{ "bad" if claim in failed else "good" }}">{{ claim.verdict }}</strong>
{% if claim.get("culprit") %}({{ claim.culprit }}){% endif %}<br>
<span class="muted">{% for key, value in claim.numbers.items() %}{{ label(key) }} {{ "%.5g"|format(value) }}
{{- "; " if not loop.last }}{% endfor %}</span></p>
{% endfor %}
{% endif %}
{% for model, result in summary.models.items() %}
<h2>{{ titles[model] }}</h2>
<table>
<caption>Test loss per image, mean{% if seeds(result)|length > 1 %} and standard deviation over
{{ seeds(result)|length }} seeds{% else %} of seed {{ seeds(result)[0] }}{% endif %}.<br>
Reconstruction: {{ result.reconstruction_unit }}. KL: {{ result.kl_unit }}.</caption>
<tr><th>term</th>{% for name in halves %}<th>{{ names[name] }}</th>{% endfor %}
{% if halves|length > 1 %}<th>relative difference</th>{% endif %}
{% if halves|length > 1 and seeds(result)|length > 1 %}<th>within the seeds' spread</th>{% endif %}</tr>
{% for term, values in result.losses.items() if values[halves[0]].mean %}
<tr><td>{{ label(term) }}</td>
{% for name in halves %}<td>{{ "%.4f"|format(values[name].mean) }}
{% if values[name].std is not none %}&plusmn; {{ "%.4f"|format(values[name].std) }}{% endif %}</td>{% endfor %}
{% if halves|length > 1 %}<td>{{ "%+.1e"|format(values.relative_difference) }}</td>{% endif %}
{% if halves|length > 1 and seeds(result)|length > 1 %}
<td>{{ "yes" if values.within_seed_spread else "no" }}</td>{% endif %}</tr>
{% endfor %}
</table>
{% if halves|length > 1 %}
<table>
<caption>Latent means of the same test images, one half against the other, seed by seed.<br>
All are blind to sign and scale, all but the axis correlation to rotation too.<br>
1 is equal, for the Procrustes disparity 0.</caption>
<tr><th>seed</th>{% for metric in result.latents_between_halves[0] %}
<th>{{ label(metric) }}</th>{% endfor %}</tr>
{% for seed in seeds(result) %}<tr><td>{{ seed }}</td>
{% for value in result.latents_between_halves[loop.index0].values() %}
<td>{{ number(value) }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
<table>
<caption>Latent means of each half by themselves, mean over seeds.</caption>
<tr><th>metric</th>{% for name in halves %}<th>{{ names[name] }}</th>{% endfor %}</tr>
{% for metric in result.latents_of_each_half[halves[0]][0] %}
<tr><td>{{ label(metric) }}</td>
{% for name in halves %}<td>{{ mean(result.latents_of_each_half[name], metric) }}</td>{% endfor %}</tr>
{% endfor %}
</table>
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
<table>
{% for name in halves %}<tr><td>{{ names[name] }}</td><td>{{ summary.environment[name].framework }}</td>
<td>{{ summary.environment[name].device }}</td></tr>{% endfor %}
</table>
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
        failed=claims.failed(summary["claims"]),
        label=_label,
        seeds=_seeds,
        size=_size,
        number=_number,
        mean=_mean,
        command=shlex.join(summary["command"]),
        pictures={
            model: {name: _data_uri(picture) for name, picture in drawn.items()} for model, drawn in pictures.items()
        },
    )
    write_atomically(path, text.encode())


def _seeds(result: Mapping[str, Any]) -> list[str]:
    """The seed of each pair of runs, or the pair of seeds where the halves have their own."""
    return [" and ".join(dict.fromkeys(map(str, pair))) for pair in zip(*result["seeds"].values())]


def _size(claim: Mapping[str, Any], key: str) -> str:
    """A claim's number, in per cent where it is relative to the first half's mean."""
    relative = "difference, relative" in claim["numbers"]
    value = claim["numbers"][f"difference, {'relative' if relative else 'absolute'}" if key == "difference" else key]
    signed = "+" if key.startswith(("difference", "90")) and "found" not in key else ""
    return f"{100 * value:{signed}.3f} %" if relative else f"{value:{signed}.4f}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _mean(described: Sequence[Mapping[str, float]], metric: str) -> str:
    values = [seed[metric] for seed in described if metric in seed]
    return _number(sum(values) / len(values) if values else None)


def _label(key: str) -> str:
    """A summary's key as a person reads it."""
    words = key.removesuffix("_nats").split("_")
    return " ".join({"kl": "KL", "cka": "CKA", "rsa": "RSA", "knn": "k-NN"}.get(word, word) for word in words)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
