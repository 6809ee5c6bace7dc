"""Record a round of `data.generate` in MLflow: a child run with its figures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from conf.schema.generate import Generate
from tasks.generation.generate import RECORD
from tasks.records.choice.generation import GenerationRecord
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_registry import Context
from tasks.tracking.recorder import recorder_of
from tasks.tracking.tracker import Tracker


def record_generation(record: RunRecord, made: GenerationRecord, settings: Generate, context: Context) -> None:
    """Keep figures, samples and settings of a round with the run in MLflow."""

    def send(tracker: Tracker, run_id: str) -> None:
        plain = settings.model_dump(mode="json")
        if isinstance(plain["endpoint"], dict):
            plain["endpoint"].pop("key")
        run = tracker.open_stage(run_id, f"generate-{made.number}", made.fingerprint, settings=plain, tags=context.tags)
        if run.state == "finished":
            return
        stamp = int(datetime.now(UTC).timestamp() * 1000)
        tracker.log_points(run.run_id, [(name, value, made.number, stamp) for name, value in figures_of(made).items()])
        tracker.log_artifact(run.run_id, Path(made.folder) / RECORD)
        tracker.close(run.run_id, "FINISHED")

    recorder_of(context.paths, record.run).attempt(f"generate (round {made.number})", record.mlflow_run_id, send)


def figures_of(made: GenerationRecord) -> dict[str, float]:
    """The figures of a round."""
    figures = {
        "prompts": made.prompts,
        "answers": made.answers,
        "kept": made.kept,
        "tokens": made.tokens,
        "seconds": made.seconds,
        "price": made.price,
    }
    figures |= {f"dropped/{rule.replace(' ', '_')}": count for rule, count in made.dropped.items()}
    figures |= {f"left_out/{reason}": count for reason, count in made.left_out.items()}
    figures |= {"score": made.score} if made.score is not None else {}
    return {f"generate/{name}": float(value) for name, value in figures.items()}
