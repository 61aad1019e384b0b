"""What a benchmark says of one case, by name; as JSON in benchmark.json."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vae_common.benchmark.cases import Case


@dataclass(frozen=True)
class Summary:
    """Some values in four numbers."""

    median: float
    lower_quartile: float
    upper_quartile: float
    n: int
    variation: float | None = None
    """Standard deviation over mean, of two values or more."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Of at least one value."""
        quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        variation = statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else None
        return cls(quartiles[1], quartiles[0], quartiles[2], len(values), variation)


@dataclass(frozen=True)
class Rounds:
    """Seconds of every round, of all processes; what was not measured is empty."""

    epoch_seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    floor_seconds: list[float] = field(default_factory=list)
    """Products and Adam, each by the fastest library."""
    turns_seconds: list[float] = field(default_factory=list)
    """The two in turn, by one library."""

    @property
    def step_over_floor(self) -> list[float]:
        """Round by round, so that what a machine drifts is in both."""
        return [step / floor for step, floor in zip(self.step_seconds, self.floor_seconds)]

    @property
    def step_over_turns(self) -> list[float]:
        """Likewise."""
        return [step / turns for step, turns in zip(self.step_seconds, self.turns_seconds)]


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do, measured beside the steps."""

    flops_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class Record:
    """One case, measured or failed; what a kind of case does not measure is None."""

    case: Case
    error: str | None = None
    """Why nothing could be measured."""
    environment: Mapping[str, str] | None = None
    platform: str | None = None
    """cpu, cuda, tpu or mps."""
    processes: int = 1
    steps: int | None = None
    """Of an epoch."""
    rounds: Rounds = field(default_factory=Rounds)
    images_per_second: float | None = None
    epoch_seconds: Summary | None = None
    step_seconds: Summary | None = None
    step_over_floor: Summary | None = None
    step_over_turns: Summary | None = None
    joules_per_image: Mapping[str, float] | None = None
    """Of whole epochs, by `cpu` and `gpu`, where the machine counts them."""
    ensemble_cost: Summary | None = None
    """Of a step of all seeds, in steps of a single one."""
    start_seconds: Mapping[str, float] | None = None
    """import, build, compile, first_step, and to_first_step: all of them."""
    part_seconds: Mapping[str, float] | None = None
    """gather, forward, backward (each with what comes before it), adam, and the whole step."""
    bound_seconds: Mapping[str, Mapping[str, float]] | None = None
    """By kind (products, adam, turns, streaming) and library."""
    fastest: Mapping[str, str] | None = None
    """By kind, the library."""
    model_flops: int | None = None
    framework_flops: float | None = None
    model_bytes: int | None = None
    ceilings: Ceilings | None = None
    of_product_ceiling: float | None = None
    of_streaming_ceiling: float | None = None
    peak_host_bytes: float | None = None
    peak_device_bytes: float | None = None
    test_loss_by_seconds: Sequence[Sequence[float]] | None = None
    """(seconds of training so far, test loss) after each epoch."""
    test_loss_nats: float | None = None

    @property
    def key(self) -> str:
        """Names the case: equal keys are the same measurement."""
        return self.case.key

    @property
    def variant(self) -> str:
        """The half and how it runs its steps."""
        return f"{self.case.framework} {self.case.execution}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; what was not measured is left out."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        rounds = {name: seconds for name, seconds in values.pop("rounds").items() if seconds}
        return values | {"key": self.key} | ({"rounds": rounds} if rounds else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`; also of an earlier version's record, of which what has changed is left out."""
        known = {f.name for f in dataclasses.fields(cls)} - {"part_seconds"}
        fields: dict[str, Any] = {name: value for name, value in values.items() if name in known}
        if "bound_seconds" in values:  # else what was called so was something else
            fields["part_seconds"] = values.get("part_seconds")
        rounds = dict(values.get("rounds", {}))
        if "parts_seconds" in rounds:  # what is the floor now; what was called so took turns
            rounds["turns_seconds"], rounds["floor_seconds"] = rounds["floor_seconds"], rounds.pop("parts_seconds")
            fields.pop("step_over_floor", None)
        fields |= {"case": Case.from_json(values["case"]), "rounds": Rounds(**rounds)}
        for name in ("epoch_seconds", "step_seconds", "step_over_floor", "step_over_turns", "ensemble_cost"):
            if name in fields:
                fields[name] = Summary(**fields[name])
        for name in ("step_over_floor", "step_over_turns"):  # of what an earlier version called otherwise, too
            over = getattr(fields["rounds"], name)
            fields |= {name: Summary.of(over)} if over else {}
        if "ceilings" in fields:
            fields["ceilings"] = Ceilings(**fields["ceilings"])
        return cls(**fields)
