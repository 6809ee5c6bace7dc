"""Settings of a whole ladder, and the checks across its parts.

Frozen and typed, parsed once from YAML. Every field has a description and a unit; the same text serves `ladder explain`, the form of
the Prefect UI and the JSON schema for editors. A field marked `identity=False` cannot change a computed number, so it is left out of
every fingerprint.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError, model_validator

from conf.errors import UserError
from conf.schema.base import Settings, setting
from conf.schema.checks.answers import check_answers, is_by_root
from conf.schema.checks.embeddings import check_embedding, with_embedding_defaults
from conf.schema.checks.parts import check_class_weights, check_evaluation, check_exports, check_rationales, check_vocabularies
from conf.schema.checks.pictures import check_image_text
from conf.schema.checks.teaching import check_teaching
from conf.schema.checks.workload import check_vision, check_workload
from conf.schema.choice.routing import Routing
from conf.schema.choice.search import SearchSettings
from conf.schema.compute import Compute
from conf.schema.data import Data, Tokenizer
from conf.schema.measures.audit import Audit, check_gate
from conf.schema.measures.bench import Bench
from conf.schema.measures.economics import Economics
from conf.schema.measures.evaluation import Evaluation
from conf.schema.measures.proof import Comparison
from conf.schema.route import ROUTE_TEXT, Route
from conf.schema.shipping.exports import Export
from conf.schema.shipping.monitoring import Monitoring
from conf.schema.shipping.promotion import PromotionRules
from conf.schema.shipping.redistill import Redistill
from conf.schema.stage.compatibility import check_endpoint, check_objective, check_on_policy
from conf.schema.stage.stage import Stage
from conf.schema.teacher import AnswersTeacher, Teacher
from conf.schema.workloads import makes_embeddings

Workload = Literal["causal-lm", "sequence-classification", "image-classification", "image-text", "embedding", "image-text-embedding"]

LADDER_NAME = "1 to 64 lower-case letters, digits and -, the first a letter or a digit, as text (quote a number)"

LICENSE = r"^[a-z0-9][a-z0-9.-]{0,63}$"  # ids of https://huggingface.co/docs/hub/repositories-licenses


class Ladder(Settings):
    """A whole ladder: data, root teacher, and the stages down from it."""

    name: str = setting(
        ...,
        "Name: MLflow experiment and registered model",
        "name",
        identity=False,
        allowed=LADDER_NAME,
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
    )
    description: str = setting("", "Purpose of the ladder", "text", identity=False)
    license: str | None = setting(
        None,
        "Licence of the students, for their model cards; none: as the root teacher's card says",
        "id of the Hub",
        identity=False,
        added=True,
        allowed="an id of the Hugging Face Hub, such as apache-2.0 or other",
        pattern=LICENSE,
    )
    workload: Workload = setting("causal-lm", "Task of the models")
    seed: int = setting(0, "Seed of data order and initial weights", "seed", ge=0, lt=2**31)
    data: Data = setting(..., "Data source; short: a path or a list of paths, the folder of a saved dataset, or digits or python-stdlib")
    tokenizer: Tokenizer = setting(Tokenizer(), "Tokenizer; not used for images")
    teacher: Teacher = setting(..., "The root teacher; short: the path of a checkpoint, with which the tokenizer is the teacher's")
    stages: tuple[Stage, ...] = setting(
        ...,
        "The stages, from the largest student to the smallest; short: [40m, 12m], their numbers of parameters",
        "stages",
        min_length=1,
        max_length=100,
    )
    route: Route = setting("as-written", ROUTE_TEXT, identity=False, added=True)  # what it makes of the stages is in their identities
    routing: Routing = setting(Routing(), "Choice of the route by pilots, where `route` is auto", identity=False, added=True)
    evaluation: Evaluation = setting(Evaluation(), "Evaluation on held-out documents")
    audit: Audit = setting(Audit(), "Audit of errors that each student inherits from its teachers", identity=False)
    compute: Compute = setting(Compute(), "Device, threads, concurrency and worker processes", identity=False)
    bench: Bench = setting(Bench(), "Measurement of latency and memory", identity=False)
    economics: Economics = setting(Economics(), "Prices and traffic, for the break-even", identity=False)
    proof: Comparison = setting(Comparison(), "Comparison of `ladder prove`", identity=False)
    monitoring: Monitoring = setting(Monitoring(), "Watching of the promoted student, by `ladder monitor`", identity=False, added=True)
    search: SearchSettings = setting(SearchSettings(), "Search for better settings, by `ladder search`", identity=False, added=True)
    exports: tuple[Export, ...] = setting(
        (),
        "Formats in which the last student is exported at the end of a run; short: their names, such as [onnx-int8, gguf-q8_0]",
        "formats",
        identity=False,
        added=True,
        max_length=20,
    )
    redistill: Redistill = setting(Redistill(), "Back to work after a drop that `ladder monitor` found", identity=False, added=True)
    promotion: PromotionRules = setting(
        PromotionRules(), "Versions in MLflow's registry, and what a new champion must show", identity=False, added=True
    )
    tracking: Literal["mlflow", "off"] = setting("mlflow", "mlflow: record runs in MLflow; off: run without it", identity=False)
    system_metrics: bool = setting(
        True,
        "Record in MLflow how busy processors, memory, disk, network and GPUs are during a training, every 10 seconds",
        identity=False,
        added=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML reads a bare `off` as false."""
        return {**value, "tracking": "off"} if isinstance(value, dict) and value.get("tracking") is False else value

    @model_validator(mode="before")
    @classmethod
    def _embeddings_have_objectives_of_their_own(cls, value: Any) -> Any:
        return with_embedding_defaults(value) if isinstance(value, dict) and makes_embeddings(str(value.get("workload"))) else value

    @model_validator(mode="after")
    def _names_differ(self) -> Ladder:
        names = [stage.name for stage in self.stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(
                    f"stages[{index}].name: got {name!r}; allowed: a name that no other stage has. "
                    f"stages[{names.index(name)}] has it already; choose another."
                )
            if name == "teacher":
                raise ValueError(
                    f"stages[{index}].name: got {name!r}; allowed: any other name. It is kept for the root teacher; choose another."
                )
        return self

    @model_validator(mode="after")
    def _parts_suit_the_workload(self) -> Ladder:
        check_workload(self.workload, self.data, self.tokenizer, self.teacher, self.stages, self.route)
        return self

    @model_validator(mode="after")
    def _pictures_with_texts(self) -> Ladder:
        if self.workload in ("image-text", "image-text-embedding"):
            check_image_text(self.workload, self.teacher, self.tokenizer, self.data, self.exports, self.stages)
        check_vision(self.workload, self.stages)
        return self

    @model_validator(mode="after")
    def _embeddings_fit(self) -> Ladder:
        check_embedding(self.workload, self.data, self.teacher, self.stages, self.route)
        return self

    @model_validator(mode="after")
    def _weights_have_their_data(self) -> Ladder:
        check_class_weights(self.workload, self.teacher)
        check_rationales(self.workload, self.data, self.teacher, self.stages)
        return self

    @model_validator(mode="after")
    def _answers_are_no_model(self) -> Ladder:
        if isinstance(self.teacher, AnswersTeacher):
            check_answers(self.teacher, self.workload, self.data, self.evaluation, self.stages)
        return self

    @property
    def aligns(self) -> bool:
        """Whether some stage can learn from a root teacher with another tokenizer."""
        return any(stage.objective.alignment != "none" for stage in self.stages)

    def is_aligned(self, stage: Stage) -> bool:
        """Whether a stage learns from the root by an alignment of tokenizers, if they differ; so may any that a gate inserts."""
        return stage.objective.alignment != "none" and is_by_root(stage, stage not in self.stages[1:])

    def has_token_answers(self, stage: Stage) -> bool:
        """Whether a stage learns from stored top-k answers of the root; so may any that a gate inserts."""
        return self.workload == "causal-lm" and self.teacher.source == "answers" and is_by_root(stage, stage not in self.stages[1:])

    @model_validator(mode="after")
    def _recorded_teachers_need_mlflow(self) -> Ladder:
        if self.tracking == "off" and self.teacher.source == "checkpoint" and self.teacher.path.startswith(("models:/", "runs:/")):
            raise ValueError(
                f"tracking: got 'off'; allowed: mlflow, since teacher.path is {self.teacher.path!r}. "
                "Leave it out, or name the teacher's folder."
            )
        return self

    @model_validator(mode="after")
    def _exports_suit_the_workload(self) -> Ladder:
        check_exports(self.workload, self.exports)
        return self

    @model_validator(mode="after")
    def _gates_need_their_audit(self) -> Ladder:
        for index, stage in enumerate(self.stages):
            limits = stage.gate.audit_bounds(self.audit.thresholds)
            if limits and makes_embeddings(self.workload):
                raise ValueError(
                    f"stages[{index}].gate.{limits[0].setting}: needs an audit of answers; allowed: none, for {self.workload}, whose "
                    "models give no answers that are right or wrong. Use min_parent_retention or min_root_retention."
                )
            check_gate(f"stages[{index}].gate", limits, self.audit)
        return self

    @property
    def audits(self) -> bool:
        """Whether students are audited: embeddings are no answers, which are right or wrong."""
        return self.audit.enabled and not makes_embeddings(self.workload)

    @model_validator(mode="after")
    def _evaluation_and_vocabularies_fit(self) -> Ladder:
        check_evaluation(self.workload, self.evaluation, self.stages)
        check_vocabularies(self.workload, self.tokenizer, self.stages)
        return self

    @model_validator(mode="after")
    def _teaching_fits(self) -> Ladder:
        try:
            check_teaching(self.teacher, self.stages)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _objectives_suit_the_workload(self) -> Ladder:
        for index, stage in enumerate(self.stages):
            try:
                several = 1 if stage.teachers in (("parent",), ("root",), ("best",), ("none",)) else 2
                if stage.teachers == ("none",) and (stage.objective.features or stage.signals.source == "cached"):
                    raise UserError.about(f"stages[{index}].teachers", "none", "a teacher, for features and cached signals", "Name one.")
                if stage.signals.source == "cached" and self.is_aligned(stage):
                    allowed = "live or auto, with objective.alignment: a teacher with another tokenizer answers live alone"
                    raise UserError.about(f"stages[{index}].signals.source", "cached", allowed, "Set it to live.")
                # auto gives way to live where the objective asks for more than a cache holds
                kind = stage.signals.kind if stage.signals.source == "cached" else "live"
                kind = "answers" if self.has_token_answers(stage) else "top-k" if stage.signals.endpoint is not None else kind
                check_objective(stage.objective, self.workload, kind, key=f"stages[{index}].objective", teachers=several)
                if stage.signals.endpoint is not None:
                    above = self.stages[index - 1].members if index else 1
                    check_endpoint(stage, self.workload, above, f"stages[{index}]")
                if stage.signals.on_policy and self.compute.processes > 1:
                    allowed = "1, with signals on-policy, where each process would write texts of its own"
                    raise UserError.about("compute.workers", self.compute.workers, allowed, "Leave it out.")
                if stage.signals.on_policy:
                    check_on_policy(stage, self.workload, self.data, answers=kind == "answers", key=f"stages[{index}]")
            except UserError as error:
                raise ValueError(str(error)) from error
        return self

    def checked(self) -> Ladder:
        """The same ladder, after the checks that `model_copy` leaves out.

        Raises:
            UserError: Its parts do not fit.
        """
        try:
            return type(self).model_validate(self.model_dump())
        except ValidationError as error:
            raise UserError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None

    def stage_seed(self, stage: Stage) -> int:
        """Seed of a stage: its own, or the ladder's."""
        return self.seed if stage.seed is None else stage.seed
