"""Text of what pilots foretell, by `ladder plan --pilot`."""

from __future__ import annotations

from conf.schema.workloads import answers_in_ids
from tasks.planning.proposals.forecast import AHEAD, LIKELY, FarStage, LadderForecast
from tasks.records.format import estimate, human, operations, percent
from tasks.report.terminal import WIDE, table_of, text_of

SURE = 0.9  # probability from which on pilots decide
COLUMNS = ("student", "params", "steps", "FLOPs", "time", "pilots", "foretold", "90 % interval")


def forecast_text(forecast: LadderForecast) -> str:
    """Foretold quality and time of every student and of one jump, and which is foretold to be better."""
    rows = [_row(stage, f"{stage.name}{', one jump' * (stage is forecast.jump)}", forecast) for stage in _all(forecast)]
    title = f"{forecast.ladder}: whole schedules foretold from pilots of {estimate(forecast.seconds)}; {_metric(forecast)}"
    early = [row[0] for row, stage in zip(rows, _all(forecast), strict=True) if not stage.learned]
    weak = [f"note: short pilots of {', '.join(early)} have learned nothing, so that these forecasts say little"] if early else []
    lines = [
        "",
        *jump_words(forecast),
        *weak,
        "FLOPs are of all trainings down to a student, time is of its own; pilots: a quarter of the steps.",
    ]
    return text_of(title, table_of(COLUMNS, rows, left=()), *lines, width=WIDE, soft_wrap=True)


def jump_words(forecast: LadderForecast) -> list[str]:
    """Whether one direct jump is foretold to be as good."""
    jump, last = forecast.jump, forecast.stages[-1]
    if jump is None or forecast.as_good is None:
        return ["The ladder is one jump already."]
    likely, sure = forecast.as_good >= LIKELY, max(forecast.as_good, 1 - forecast.as_good)
    verdict = "as good as the ladder" if likely else "worse than the ladder"
    found = [
        f"One jump to {last.name} with as many FLOPs ({jump.steps:,} steps) is foretold to be {verdict} (probability {percent(sure, 0)})."
    ]
    if sure < SURE:
        found.append("The pilots do not decide it: `ladder prove` does.")
    if forecast.equal_flops is None:
        found.append(f"It is not foretold to come level within {AHEAD:g} times the ladder's FLOPs.")
    elif forecast.equal_flops < last.flops:
        share, advice = percent(forecast.equal_flops / last.flops, 0), ": distil directly" if sure >= SURE else ""
        found.append(f"It comes level at {share} of the ladder's FLOPs{advice}.")
    else:
        found.append(f"It comes level at {forecast.equal_flops / last.flops:.2g} times the ladder's FLOPs.")
    return found


def _all(forecast: LadderForecast) -> list[FarStage]:
    return [*forecast.stages, *([forecast.jump] if forecast.jump else [])]


def _metric(forecast: LadderForecast) -> str:
    return "bits per byte on the validation split" if answers_in_ids(forecast.workload) else "accuracy on the validation split"


def _row(stage: FarStage, name: str, forecast: LadderForecast) -> list[str]:
    _, _, loss = max(stage.measured, key=lambda each: (each[0], -each[1]))
    ends = (stage.low, stage.high) if answers_in_ids(forecast.workload) else (stage.high, stage.low)
    return [
        name,
        human(stage.parameters),
        f"{stage.steps:,}",
        operations(stage.flops),
        estimate(stage.seconds),
        _score(loss, forecast),
        _score(stage.loss, forecast),
        f"{_score(ends[0], forecast)} to {_score(ends[1], forecast)}",
    ]


def _score(loss: float, forecast: LadderForecast) -> str:
    return f"{loss:.3f}" if answers_in_ids(forecast.workload) else percent(max(1 - loss, 0.0))
