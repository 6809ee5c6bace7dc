"""Refuse objectives that do not suit their workload, signals or settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from conf.errors import UserError
from conf.schema.data import has_rationales
from conf.schema.stage.objective import CLASSIFICATION_ONLY, DENSE_ONLY, EMBEDDING_ONLY, SOFTMAX_FREE, ObjectiveKind, weight_of_rationales
from conf.schema.workloads import answers_in_ids, makes_embeddings

if TYPE_CHECKING:
    from conf.schema.data import CommonData
    from conf.schema.stage.objective import Objective
    from conf.schema.stage.stage import Stage

SPARSE = ("top-k", "sampled", "answers")  # signals that do not hold every id's probability


def check_objective(objective: Objective, workload: str, signals_kind: str = "live", *, key: str = "objective", teachers: int = 1) -> None:
    """Refuse an objective that its workload or its teacher's signals do not support.

    Args:
        objective: The stage's.
        workload: The ladder's.
        signals_kind: `live`, `full`, `top-k`, `sampled`, or `answers`: top-k from a file.
        key: Dotted key of the objective, such as `stages[1].objective`.
        teachers: Number of the stage's teachers.

    Raises:
        UserError: Naming the setting, the allowed values and the remedy.
    """
    kind = objective.kind
    if (kind in EMBEDDING_ONLY) != makes_embeddings(workload):
        others = [each for each in get_args(ObjectiveKind) if (each in EMBEDDING_ONLY) == makes_embeddings(workload)]
        raise UserError.about(f"{key}.kind", kind, f"{', '.join(others)}, for workload {workload}", "Choose another.")
    if makes_embeddings(workload) and signals_kind != "live":
        raise UserError.about(f"{key}.kind", kind, f"no {kind} with cached signals ({signals_kind})", "Set signals to live.")
    if kind in CLASSIFICATION_ONLY and answers_in_ids(workload):
        raise UserError.about(f"{key}.kind", kind, f"any other kind; {kind} is for classification", "Choose another.")
    if objective.class_weights != "none" and answers_in_ids(workload):
        allowed = f"none, for {workload}; weights of classes are for classification"
        raise UserError.about(f"{key}.class_weights", objective.class_weights, allowed, "Leave it out.")
    if objective.standardize and kind in SOFTMAX_FREE:
        raise UserError.about(f"{key}.standardize", True, f"false, for {kind}, which compares the logits' own size", "Set it to false.")
    if objective.combine == "mean" and kind in SOFTMAX_FREE:
        raise UserError.about(f"{key}.combine", "mean", f"sum, for {kind}, which has no probabilities to average", "Set it to sum.")
    _check_alignment(objective, workload, key)
    for index, feature in enumerate(objective.features):
        where = f"{key}.features[{index}].kind"
        if feature.kind == "minilm" and answers_in_ids(workload):
            raise UserError.about(where, "minilm", f"hidden, for {workload}; minilm is for encoders", "Choose hidden.")
        if teachers > 1:
            raise UserError.about(where, feature.kind, "no feature with several teachers", "Set teachers to [parent] or [root].")
        if signals_kind != "live":
            raise UserError.about(where, feature.kind, f"no feature with cached signals ({signals_kind})", "Set signals to live.")
    if signals_kind in SPARSE:
        _check_sparse(objective, signals_kind, key, teachers)


def _check_alignment(objective: Objective, workload: str, key: str) -> None:
    """Refuse settings that a teacher with another tokenizer cannot serve."""
    alignment, temperature = objective.alignment, objective.temperature
    if alignment == "none":
        return
    if workload != "causal-lm":
        raise UserError.about(f"{key}.alignment", alignment, f"none, for {workload}; it is for causal-lm", "Leave it out.")
    if objective.features:
        allowed = f"no feature with alignment {alignment}, for a teacher whose positions are others"
        raise UserError.about(f"{key}.features", objective.features[0].kind, allowed, "Leave it out.")
    if alignment == "uld" and {temperature.start, temperature.end} - {1.0, None}:
        raise UserError.about(f"{key}.temperature", temperature.start, "1 with alignment uld", "Leave it out, or choose bytes.")
    if alignment == "text" and (objective.alpha.start or objective.alpha.end):
        remedy = "Set alpha to 0: the teacher's texts, of data.generate, are the labels. Or choose bytes."
        raise UserError.about(f"{key}.alpha", objective.alpha.start, "0 with alignment text, which asks no teacher", remedy)


def _check_sparse(objective: Objective, signals_kind: str, key: str, teachers: int) -> None:
    stored = signals_kind == "answers"
    remedy = "Change it." if stored else "Change it, or set signals to live."
    condition = "below answers" if stored else f"with {signals_kind} signals"
    if objective.kind in DENSE_ONLY or (signals_kind == "sampled" and objective.kind != "forward-kl"):
        kinds = ["forward-kl"] if signals_kind == "sampled" else [kind for kind in get_args(ObjectiveKind) if kind not in DENSE_ONLY]
        allowed = f"{', '.join(kinds)} {condition}, which do not hold every probability"
        raise UserError.about(f"{key}.kind", objective.kind, allowed, remedy)
    if objective.wrong_teacher != "none":
        raise UserError.about(f"{key}.wrong_teacher", objective.wrong_teacher, f"none {condition}", remedy)
    if objective.standardize:
        raise UserError.about(f"{key}.standardize", True, f"false {condition}", remedy)
    if objective.combine == "mean" and teachers > 1:
        raise UserError.about(f"{key}.combine", "mean", f"sum {condition}", remedy)
    temperature = objective.temperature
    if signals_kind == "sampled" and {temperature.start, temperature.end} - {1.0, None}:
        raise UserError.about(
            f"{key}.temperature", temperature.start, "1 with sampled signals, which estimate the teacher at that temperature alone", remedy
        )


def check_on_policy(stage: Stage, workload: str, data: CommonData, *, answers: bool = False, key: str = "") -> None:
    """Refuse text that the student writes where nothing could learn from it.

    Args:
        stage: With signals on-policy.
        workload: The ladder's.
        data: The ladder's; a prompt and a text must fit its `sequence_length`.
        answers: The root's answers are a file.
        key: Dotted key of the stage, such as `stages[1]`.

    Raises:
        UserError: Naming the setting, the allowed values and the remedy.
    """
    signals, objective, longest = stage.signals, stage.objective, data.sequence_length
    source, other = f"{key}.signals.source", "Set it to live or cached."
    if workload != "causal-lm":
        raise UserError.about(source, "on-policy", f"live, cached or auto, for {workload}; only language models write text", other)
    if stage.teachers == ("none",):
        raise UserError.about(source, "on-policy", "live, without a teacher, who alone can judge what a student writes", other)
    if answers:
        raise UserError.about(source, "on-policy", "live or cached, below answers from a file, which hold none to new text", other)
    if not data.cross_document_attention:
        raise UserError.about(source, "on-policy", "live, cached or auto, with data.cross_document_attention false", other)
    alpha = objective.alpha
    if alpha.start == 0 or alpha.end == 0:
        raise UserError.about(
            f"{key}.objective.alpha", 0.0, "above 0 throughout, with signals on-policy: a text has no labels", "Raise it."
        )
    if objective.features:
        allowed = "none, with signals on-policy"
        raise UserError.about(f"{key}.objective.features", objective.features[0].kind, allowed, "Leave them out, or set signals to live.")
    weight = weight_of_rationales(objective.rationale)
    if weight and has_rationales(data):
        allowed = "0, with signals on-policy: the student writes answers"
        raise UserError.about(f"{key}.objective.rationale", weight, allowed, "Set it to 0, or signals to live.")
    columns = getattr(data, "columns", None)
    if columns is not None and getattr(columns, "rationale", None) is not None and weight_of_rationales(objective.rationale):
        allowed = "0, with signals on-policy, whose texts have no rationales"
        raise UserError.about(f"{key}.objective.rationale", objective.rationale, allowed, "Set it to 0, or set signals to live.")
    if columns is not None and columns.conversations:
        if signals.prompt is not None:
            allowed = "none, for rows that have prompts of their own"
            raise UserError.about(f"{key}.signals.prompt", signals.prompt, allowed, "Leave it out.")
        return
    prompt = longest // 2 if signals.prompt is None else signals.prompt
    if prompt >= longest:
        raise UserError.about(f"{key}.signals.prompt", prompt, f"below data.sequence_length, {longest}", "Shorten it.")
    if signals.tokens is not None and prompt + signals.tokens > longest:
        allowed = f"at most {longest - prompt}, which data.sequence_length leaves after a prompt of {prompt}"
        raise UserError.about(
            f"{key}.signals.tokens", signals.tokens, allowed, "Lower it, shorten signals.prompt, or lengthen the sequences."
        )


def check_endpoint(stage: Stage, workload: str, members: int, key: str) -> None:
    """Refuse a teacher behind an endpoint that could not answer.

    Args:
        stage: With `signals.endpoint`.
        workload: The ladder's.
        members: Of the stage above.
        key: Dotted key of the stage, such as `stages[1]`.

    Raises:
        UserError: Naming the setting, the allowed values and the remedy.
    """
    place, signals = f"{key}.signals.endpoint", stage.signals
    assert signals.endpoint is not None
    for wrong, condition in (
        (workload != "causal-lm", f"none, for workload {workload}"),
        (signals.source not in ("live", "on-policy"), f"none, with signals.source {signals.source}"),
        (stage.teachers not in (("parent",), ("root",)), "none, with teachers other than [parent] or [root], for which it stands"),
        (members > 1 and stage.teachers == ("parent",), "none, below a stage with members"),
        (stage.student.vocabulary == "used", "none, with student.vocabulary used, whose ids no server knows"),
        (stage.members > 1, "none, with members"),
        (stage.objective.alignment != "none", "none, with objective.alignment: a server is asked by the student's own ids"),
    ):
        if wrong:
            raise UserError.about(place, signals.endpoint.url, condition, "Leave it out.")


def check_members(objective: Objective, signals_kind: str, *, key: str) -> None:
    """Refuse an objective or signals that know no mean of the probabilities of several models.

    Args:
        objective: The stage's.
        signals_kind: `live`, `full`, `top-k` or `sampled`.
        key: Dotted key of the stage, such as `stages[1]`.

    Raises:
        UserError: Naming the setting, the allowed values and the remedy.
    """
    why = "below a stage with members, whose probabilities are averaged"
    if objective.kind in SOFTMAX_FREE:
        raise UserError.about(f"{key}.objective.kind", objective.kind, f"any other kind, {why}", "Choose another.")
    if objective.features:
        raise UserError.about(f"{key}.objective.features", objective.features[0].kind, f"none, {why}", "Leave them out.")
    if signals_kind in SPARSE:
        raise UserError.about(f"{key}.signals.kind", signals_kind, f"full, or signals live, {why}", "Change it.")
