"""The result of a search: winner, override file, record in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.atomic import write_atomic
from conf.home import disk_errors
from tasks.records.routes.search import SEARCH, WINNER, Confirmation, SearchedTrial, SearchRecord
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_registry import Context
from tasks.search.plan import SearchPlan
from tasks.search.space import overrides_of
from tasks.search.words import verdict
from tasks.store.fingerprint import fingerprint
from tasks.tracking.recorder import recorder_of
from tasks.tracking.runs import Point
from tasks.tracking.tracker import Tracker


def search_record(
    plan: SearchPlan, run: str, trials: Sequence[SearchedTrial], defaults: SearchedTrial | None, notes: Sequence[str] = ()
) -> SearchRecord:
    """The record of a search as far as it got, its winner and verdict in it.

    Args:
        plan: The search.
        run: Name of the run.
        trials: Of the study.
        defaults: The ladder's own settings, trained in full.
        notes: To be kept.
    """
    settings = plan.settings
    record = SearchRecord(
        run=run,
        ladder=plan.ladder.name,
        study=plan.study,
        stages=plan.stages,
        metric=plan.metric,
        more_is_better=plan.more_is_better,
        against=settings.against,
        space={dimension.name: dimension.words for dimension in plan.space},
        steps=tuple(plan.steps(share) for share in plan.shares),
        wanted=settings.most_trials if settings.budget is None or settings.trials else None,
        budget=settings.budget,
        defaults=defaults,
        trials=tuple(trials),
        notes=tuple(notes),
    )
    winner = _winner(record)
    if winner is not None:
        changed = plan.trial(winner.values)
        record = record.model_copy(update={"winner": winner.number, "overrides": overrides_of(plan.ladder, changed, plan.space)})
    return record.model_copy(update={"verdict": verdict(record)})


def _winner(record: SearchRecord) -> SearchedTrial | None:
    """The best trial of those that were trained in full, if better than the defaults; of two objectives none that costs more."""
    own = record.defaults
    if own is None or own.score is None:
        return None
    full = [trial for trial in record.trials if trial.score is not None]
    if record.against != "none":
        full = [trial for trial in full if trial.front and trial.second is not None and own.second and trial.second <= own.second]
    scores = [trial.score for trial in full if trial.score is not None]
    if not scores:
        return None
    best = max(scores) if record.more_is_better else min(scores)
    found = next(trial for trial in full if trial.score == best)
    return found if record.better(best, own.score) else None


def confirmed(record: SearchRecord, found: Confirmation | None) -> SearchRecord:
    """The record with the winner's comparison on fresh seeds, and the verdict that follows from it."""
    record = record.model_copy(update={"confirmation": found})
    return record.model_copy(update={"verdict": verdict(record)})


def save_search(run: RunRecord, record: SearchRecord, context: Context) -> SearchRecord:
    """Write `search.json` beside the run's record, and the winner's overrides as a file for `ladder run LADDER @FILE`."""
    folder = Path(run.folder)
    with disk_errors(context.paths):
        if record.best is not None:
            file = folder / WINNER
            record = record.model_copy(update={"file": str(file)})
            write_atomic(file, "\n".join([f"# {record.verdict}", *record.overrides, ""]))
        write_atomic(folder / SEARCH, record.model_dump_json(indent=1))
    return record


def log_trial(record: SearchRecord, trial: SearchedTrial, context: Context, parent: str | None) -> None:
    """Keep a trial in MLflow, as a child of the search's run: its values, its score on each rung, its state."""

    def send(tracker: Tracker, parent_id: str) -> None:
        from datetime import UTC, datetime

        stamp = int(datetime.now(UTC).timestamp() * 1000)
        key = fingerprint({"study": record.study, "trial": trial.number, "run": record.run})
        child = tracker.open_stage(
            parent_id, f"trial {trial.number}", key, settings={"trial": trial.number, **trial.values}, tags={"ladder.trial": trial.state}
        )
        if child.state == "finished":
            return
        points: list[Point] = [(f"valid/{record.metric}", rung.score, rung.steps, stamp) for rung in trial.rungs]
        points += [(f"search/{record.against}", trial.second, trial.rungs[-1].steps, stamp)] if trial.second is not None else []
        tracker.log_points(child.run_id, points)
        tracker.set_tags(child.run_id, {"ladder.trial": trial.state, **({"ladder.refused": trial.why} if trial.why else {})})
        tracker.close(child.run_id, "FAILED" if trial.state == "refused" else "FINISHED")

    recorder_of(context.paths, context.run).attempt(f"trial {trial.number}", parent, send)


def log_search(record: SearchRecord, context: Context, parent: str | None) -> None:
    """Keep the result in MLflow, with the search's run: the record, the override file, the gain, the verdict as a tag."""

    def send(tracker: Tracker, run_id: str) -> None:
        from datetime import UTC, datetime

        stamp = int(datetime.now(UTC).timestamp() * 1000)
        folder = context.paths.runs / record.run
        for name in (SEARCH, WINNER):
            if (folder / name).is_file():
                tracker.log_artifact(run_id, folder / name)
        figures = {"search/defaults": record.defaults and record.defaults.score, "search/winner": record.best and record.best.score}
        if record.confirmation:
            figures |= {"search/gain": record.confirmation.gain.mean, "search/gain_low": record.confirmation.gain.low}
        tracker.log_points(run_id, [(key, value, 0, stamp) for key, value in figures.items() if value is not None])
        tracker.set_tags(run_id, {"ladder.verdict": record.verdict, "ladder.study": record.study})

    recorder_of(context.paths, context.run).attempt("search", parent, send)
