"""Write the model card: `README.md` in a student's folder, with Hub metadata.

A card is a view, as the report is: written again whenever a run has judged the student, beside the files that the store verifies and not
among them, and logged with them as MLflow's artifact `student/`. The metadata are written by huggingface_hub, whose format they are:
https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conf.atomic import write_atomic
from conf.schema.ladder import Ladder
from models.base.quality import baseline_figures, baseline_name, learned_nothing
from tasks.records import format as fmt
from tasks.records.run import DataRecord, RunRecord, StageRecord
from tasks.report import markdown, tables
from tasks.report.reproduce import reproduction
from tasks.report.sections.measures.audit import verdict
from tasks.report.sections.outcome import smaller
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context
from tasks.teachers.origin import Origin, hub_id, origin_of
from tasks.teachers.teacher_source import CARD, HUB_ID
from tasks.tracking.packaging.flavour import TASKS, parts_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TEMPLATES = Path(__file__).with_name("templates")
# Figure -> type and name of the metric for the Hub, https://huggingface.co/metrics where there is one.
METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "bits_per_byte": ("bits_per_byte", "Bits per byte"),
    "perplexity": ("perplexity", "Perplexity per token"),
    "nll": ("nll", "Negative log-likelihood in nats"),
    "ece": ("ece", "Expected calibration error"),
    "exact_match": ("exact_match", "Exact answers"),
    "similarity": ("similarity", "Rank correlation of cosines between texts with the root's"),
    "cosine": ("cosine", "Mean cosine to the root's embeddings"),
    "mse": ("mse", "Mean squared difference from the root's embeddings"),
    "recall": ("recall_at_1", "Recall at 1, from pictures to texts"),
    "recall_pictures": ("recall_at_1", "Recall at 1, from texts to pictures"),
    "spearman": ("spearman_cosine", "Spearman's rank correlation on scored pairs"),
}
OF_WORKLOAD = {
    "causal-lm": ("bits_per_byte", "perplexity", "nll"),
    "image-text": ("exact_match", "bits_per_byte", "perplexity", "nll"),
    "embedding": ("similarity", "cosine", "mse", "spearman"),
    "image-text-embedding": ("recall", "recall_pictures", "similarity", "cosine", "mse"),
}
OTHERS = ("accuracy", "macro_f1", "nll", "ece")
SHOWN = ("student", "begins", "objective", "signals", "training", "seed")  # of the identity, in this order
WORST = 5
PROMPT = 80  # most characters of the example's prompt


def write_card(record: StageRecord, lineage: Sequence[StageRecord], ladder: Ladder, data: DataRecord, context: Context) -> Path | None:
    """Write a student's card, whole or not at all, over an older one; None where its folder takes none, which ends no run.

    Args:
        record: The student, judged.
        lineage: The models above it, the root first.
        ladder: The settings.
        data: The corpus.
        context: The run, whose record is on disk.
    """
    run = RunRecord.model_validate_json((context.paths.runs / context.run / "record.json").read_text(encoding="utf-8"))
    path = Path(record.folder) / CARD
    try:
        write_atomic(path, card(record, lineage, ladder, data, context, run))
    except OSError as error:
        log.warning("%s: no model card was written (%s)", record.name, error.strerror or error)
        return None
    return path


def card(record: StageRecord, lineage: Sequence[StageRecord], ladder: Ladder, data: DataRecord, context: Context, run: RunRecord) -> str:
    """The text of a card; see `write_card` for the arguments."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "human": fmt.human,
        "percent": fmt.percent,
        "duration": fmt.duration,
        "operations": fmt.operations,
        "short": lambda text: text[:12],
        "literal": lambda text: repr(text).replace("`", "\\x60"),  # which would end the block
        "text": markdown.escape,
    }
    info, root, commands = data.corpus().info, lineage[0], reproduction(run)
    origin = origin_of(ladder, root, context)
    settings = yaml.safe_dump({key: record.identity[key] for key in SHOWN if key in record.identity}, sort_keys=False).rstrip()
    text = environment.get_template("card.md.j2").render(
        record=record,
        models=[*lineage, record],
        root=root,
        run=run,
        ladder=ladder,
        info=info,
        data=data,
        data_name=data_name(ladder),
        quality=tables.quality_of(run),
        smaller=smaller(root.parameters, record.parameters),
        base=hub_id(ladder.teacher, context),
        origin=origin,
        parts=parts_of(Path(record.folder)),
        prompt=next((sample.prompt[:PROMPT] for sample in record.samples if sample.prompt.strip()), "The"),
        auto_class=TASKS[ladder.workload][2],
        figures=[(METRICS[key][1], model_figures(key, record, root)) for key in figures_of(ladder) if key in record.metrics],
        baseline=baseline_name(ladder.workload),
        limits=limits(record),
        settings=settings,
        commands=commands,
        fence=markdown.fence("\n".join([settings, *commands])),
    )
    return f"---\n{metadata(record, lineage, ladder, context, origin)}\n---\n\n{text}"


def metadata(record: StageRecord, lineage: Sequence[StageRecord], ladder: Ladder, context: Context, origin: Origin) -> str:
    """The card's metadata as YAML.

    `base_model` is the root's id on the Hub where it came from there, or the one that its own card names. Any other name could be somebody
    else's model, so a root that was made here gives the parent's name with its fingerprint. The licence is the root's, as its card or the
    settings name it; that of the data is not known here.
    """
    from huggingface_hub import ModelCardData

    tags = ["distillation", "knowledge-distillation", f"ladder:{ladder.name}"]
    on_hub = ladder.data.source == "dataset" and HUB_ID.match(ladder.data.name) and not Path(context.base, ladder.data.name).exists()
    return ModelCardData(
        base_model=origin.base_model or model_name(ladder, lineage[-1]),
        license=origin.license,
        license_name=origin.license_name,
        license_link=origin.license_link,
        library_name="sentence-transformers" if ladder.workload == "embedding" else "transformers",
        pipeline_tag=TASKS[ladder.workload][0],
        tags=tags,
        model_name=model_name(ladder, record),
        eval_results=_results(record, ladder),
        datasets=[data_name(ladder)] if on_hub else None,
    ).to_yaml()


def model_name(ladder: Ladder, record: StageRecord) -> str:
    """A name that no other model has."""
    return f"{ladder.name}-{record.name}-{record.fingerprint[:12]}"


def _results(record: StageRecord, ladder: Ladder) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASKS[ladder.workload][0],
            dataset_type=data_name(ladder),
            dataset_name=data_name(ladder),
            dataset_split="validation",
            metric_type=METRICS[key][0],
            metric_name=METRICS[key][1],
            metric_value=round(record.metrics[key], 6),
        )
        for key in figures_of(ladder)
        if key in record.metrics
    ]


def figures_of(ladder: Ladder) -> tuple[str, ...]:
    """The figures that a card shows."""
    return OF_WORKLOAD.get(ladder.workload, OTHERS)


def model_figures(key: str, record: StageRecord, root: StageRecord) -> tuple[str, str, str]:
    """A figure of the student, of the root and of the guess that reads no input, for readers."""
    kind = tables.ACCURACY if key in ("accuracy", "macro_f1", "exact_match", "recall", "recall_pictures") else tables.BITS
    found = [figures.get(key) for figures in (record.metrics, root.metrics, baseline_figures(record.metrics))]
    student, teacher, guess = (fmt.NONE if value is None else tables.score(kind, {kind.key: value}) for value in found)
    return student, teacher, guess


def data_name(ladder: Ladder) -> str:
    """The data's name for readers: the id of a data set, else the kind of source."""
    return ladder.data.name if ladder.data.source == "dataset" else ladder.data.source


def limits(record: StageRecord) -> list[str]:
    """Known faults of a student: flags of its audit, missed bounds of its gate, weakest slices."""
    unknown = "No audit was run: which errors it has of its teachers is not known."
    if "cosine" in record.metrics:
        unknown = "Embeddings are no answers that are right or wrong: no audit of inherited errors applies to them."
    found = [f"Audit against {record.audit.parent} and the root: {verdict(record.audit)}" if record.audit else unknown]
    found += [f"It has learned nothing: {why}."] if (why := learned_nothing(record.metrics)) else []
    found += [f"Its gate: {reason}." for reason in record.gate_reasons]
    found += [f"A person decided: {record.decision}."] if record.decision else []
    for name, other in record.also.items():
        metric = tables.metric_in(other.metrics)
        kept = "" if other.retention.root is None else f", {fmt.percent(other.retention.root)} of the root's quality"
        found.append(f"On {name}, data that no training saw: {tables.score(metric, other.metrics)} {metric.unit}{kept}.")
    quality = tables.metric_in(record.metrics)
    judged = [(name, figures) for name, figures in record.slices.items() if quality.key in figures]
    worst = sorted(judged, key=lambda item: item[1][quality.key], reverse=quality is tables.BITS)[:WORST]
    if worst:
        named = ", ".join(f"{name} {tables.score(quality, figures)} ({figures.get('count', 0):,.0f})" for name, figures in worst)
        found.append(f"Weakest slices, {quality.unit} (and their examples): {named}.")
    return found
