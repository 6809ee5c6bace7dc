"""The space of a search: dimensions, values of a trial, and the ladder with them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from conf.errors import UserError
from conf.loading.introspect import at, class_at, field_at, suggest
from conf.loading.messages import describe
from conf.loading.yaml_output import in_one_line
from conf.schema.choice.search import RANGE, flattened
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import WHOLE_BATCH
from conf.schema.stage.stage import Stage
from conf.schema.workloads import answers_in_ids

Value = Any  # of a setting, as YAML gives it
REFUSED = {
    "name": "It changes nothing.",
    "notes": "It changes nothing.",
    "gate": "It changes no student.",
    "seed": "The best of several seeds is no better setting; the winner is compared on fresh seeds.",
    "training.steps": "The rungs set it: search.rungs and search.factor.",
    "student.parameters": "It has become a shape: search student.shape.hidden_size and the like, with search.max_parameters.",
}
SCHEDULED = ("objective.alpha", "objective.temperature")
DIGITS = 4  # significant digits of a drawn number


@dataclass(frozen=True)
class Dimension:
    """A setting that is searched.

    Attributes:
        key: Dotted, of a stage.
        stages: Names of the stages that get it.
        choices: Values to choose from; empty: a range.
        low: Least value of a range.
        high: Largest value.
        log: Whether it is drawn evenly on a logarithmic scale.
        whole: Whether it is a whole number.
        relative: Whether its values are factors of each stage's own setting.
        apart: Whether the space names its one stage.
    """

    key: str
    stages: tuple[str, ...]
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    relative: bool = False
    apart: bool = False

    @property
    def name(self) -> str:
        """Its name in the study: the key, after the stage where the space names one."""
        return self.key if not self.apart else f"stages.{self.stages[0]}.{self.key}"

    @property
    def words(self) -> str:
        """Its values in words."""
        if self.choices:
            text = ", ".join(map(in_one_line, self.choices))
        else:
            text = f"{self.low:g} to {self.high:g}" + (", logarithmic" if self.log else "")
        return f"{text} (times the stage's own)" if self.relative else text

    def value(self, drawn: Value) -> Value:
        """The value that a study's parameter stands for: of choices its text, of ranges the number, rounded to four digits."""
        if self.choices:
            return next(choice for choice in self.choices if in_one_line(choice) == drawn)
        return int(drawn) if self.whole else float(f"{drawn:.{DIGITS}g}")


def default_space(ladder: Ladder, stages: Sequence[Stage]) -> dict[str, Any]:
    """A space that suits a workload: weight of the teacher, learning rate and weight decay; the temperature of classifiers.

    Embeddings have no labels that the teacher could be weighed against.
    """
    space: dict[str, Any] = {
        "training.learning_rate": {"low": 0.25, "high": 4.0, "log": True, "relative": True},
        "training.weight_decay": {"low": 0.001, "high": 1.0, "log": True},
    }
    if ladder.workload == "embedding":
        if all(stage.objective.kind in WHOLE_BATCH for stage in stages):
            space["objective.temperature"] = {"low": 0.01, "high": 0.5, "log": True}
    elif all(stage.teachers != ("none",) for stage in stages):
        space["objective.alpha"] = {"low": 0.3, "high": 1.0}
        if not answers_in_ids(ladder.workload):
            space["objective.temperature"] = {"low": 1.0, "high": 6.0, "log": True}
    return space


def dimensions(ladder: Ladder, stages: Sequence[str]) -> tuple[Dimension, ...]:
    """The dimensions of a ladder's space, checked.

    Args:
        ladder: Settled.
        stages: Names of the stages that are searched.

    Raises:
        UserError: The space is empty, names an unknown key, a stage that is not searched, or a value that the setting cannot have.
    """
    chosen = [stage for stage in ladder.stages if stage.name in stages]
    space = flattened(ladder.search.space) or default_space(ladder, chosen)
    found = tuple(_dimension(key, given, ladder, tuple(stages)) for key, given in space.items())
    together = sum(dimension.key.startswith("student.") for dimension in found) > 1  # parts of a shape fit only with each other
    for dimension in found:
        for value in () if together and dimension.key.startswith("student.") else _ends(dimension):
            try:
                applied(ladder, found, {dimension.name: value})
            except UserError as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"search.space.{dimension.name}: got {in_one_line(value)}, which does not fit: {reason}") from None
    return found


def _ends(dimension: Dimension) -> list[Value]:
    if dimension.choices:
        return list(dimension.choices)
    return [int(end) if dimension.whole else end for end in (dimension.low, dimension.high)]


def _dimension(key: str, given: Any, ladder: Ladder, stages: tuple[str, ...]) -> Dimension:
    where, names, inner = f"search.space.{key}", stages, key
    if key.startswith("stages."):
        name, _, inner = key.removeprefix("stages.").partition(".")
        if name not in stages:
            raise UserError.about(where, name, f"a stage that is searched: {', '.join(stages)}", suggest(name, stages).strip())
        names = (name,)
    refused = next((top for top in REFUSED if inner == top or inner.startswith(f"{top}.")), None)
    if refused:
        raise UserError.about(where, refused, "a setting of a stage that changes its student", REFUSED[refused])
    plain = next(stage for stage in ladder.stages if stage.name in names).model_dump(mode="json")
    parts = inner.split(".")
    free = parts[:2] == ["student", "config"] and len(parts) > 2  # of any architecture
    field = None if free else field_at(Stage, parts, plain)
    if not free and field is None:
        raise _unknown(where, parts, plain)
    if not isinstance(given, Mapping) or given.get("choices") is not None:
        choices = tuple(given["choices"] if isinstance(given, Mapping) else given)
        return Dimension(inner, names, choices, relative=isinstance(given, Mapping) and bool(given.get("relative")), apart=inner != key)
    whole = field is not None and int in (field.annotation, *get_args(field.annotation))
    whole = whole or (free and all(isinstance(given[end], int) for end in ("low", "high")))
    relative = bool(given.get("relative"))
    ends = float(given["low"]), float(given["high"])
    return Dimension(inner, names, (), *ends, bool(given.get("log")), whole and not relative, relative, apart=inner != key)


def _unknown(where: str, parts: Sequence[str], plain: Mapping[str, Any]) -> UserError:
    """The error for a key that no stage has: the first part of it that is wrong, and what stands there."""
    for depth in range(len(parts)):
        model = class_at(Stage, parts[:depth], plain)
        names = [name for name in model.model_fields if name not in REFUSED] if model else []
        if model is None or parts[depth] not in names:
            allowed = ", ".join(names) if names else f"no key below {'.'.join(parts[:depth])}"
            return UserError.about(where, parts[depth], allowed, f"{suggest(parts[depth], names)}`ladder explain stages` describes them.")
    return UserError.about(where, ".".join(parts), RANGE, "`ladder explain stages` describes the keys.")


def applied(ladder: Ladder, space: Sequence[Dimension], values: Mapping[str, Value]) -> Ladder:
    """The ladder with the values of a trial; another batch changes the steps, so that a student sees as many examples.

    Args:
        ladder: Settled.
        space: The dimensions.
        values: Of a trial, by the dimensions' names; a dimension without one leaves its setting as it is.

    Raises:
        UserError: The values do not fit together, or into the ladder.
    """
    plain = ladder.model_dump(mode="json")
    before = copy.deepcopy(plain)
    for index, stage in enumerate(ladder.stages):
        own = plain["stages"][index]
        for dimension in space:
            if stage.name in dimension.stages and dimension.name in values:
                _put(own, dimension, values[dimension.name], at(before["stages"][index], dimension.key.split(".")))
        for key in SCHEDULED:
            course = at(own, key.split("."))
            if isinstance(course, dict) and any(dimension.key.startswith(f"{key}.") for dimension in space):
                course["kind"] = "constant" if course.get("end") is None else "cosine"
        batch, former = own["training"]["batch_size"], stage.training.batch_size
        if batch != former:
            own["training"]["steps"] = max(1, round(stage.training.steps * former / batch))
    try:
        return Ladder.model_validate(plain)
    except ValidationError as error:
        raise UserError(describe(error, plain, plain)) from None


def _put(own: dict[str, Any], dimension: Dimension, value: Value, present: Any) -> None:
    """Put a value into the plain settings of a stage."""
    *above, last = dimension.key.split(".")
    node = own
    for part in above:
        if not isinstance(node.get(part), dict):
            raise UserError.about(f"search.space.{dimension.name}", part, "a setting that the stage has", f"It has no {part} to change.")
        node = node[part]
    if dimension.relative:
        present = present["start"] if isinstance(present, dict) and "start" in present else present
        if isinstance(present, bool) or not isinstance(present, int | float):
            raise UserError.about(
                f"search.space.{dimension.name}", value, "values, where the stage's own is no number", "Leave out relative."
            )
        times = present * value
        value = max(1, round(times)) if isinstance(present, int) else float(f"{times:.{DIGITS}g}")
    node[last] = value


def overrides_of(ladder: Ladder, changed: Ladder, space: Sequence[Dimension]) -> tuple[str, ...]:
    """The overrides that make a ladder of its file to one with a trial's values; settings that stay as they are have none.

    Where pilots choose the ladder's route, its stages as written were searched, and the overrides say so.

    Args:
        ladder: Settled, as its file has it.
        changed: The same with the values.
        space: The dimensions.
    """
    lines: dict[str, None] = {}
    for old, new in zip(ladder.stages, changed.stages, strict=True):
        before, after = (stage.model_dump(mode="json", exclude_none=True) for stage in (old, new))
        keys = [_whole(dimension.key) for dimension in space if new.name in dimension.stages]
        if new.training.steps != old.training.steps:
            keys.append("training.steps")
        for key in dict.fromkeys(keys):
            value = at(after, key.split("."))
            if value != at(before, key.split(".")):
                plain = new.student.model_dump(mode="json", exclude_defaults=True) if key == "student" else _bare(value)
                lines[f"stages.{new.name}.{key}={in_one_line(plain)}"] = None
    return ("route=as-written", *lines) if lines and ladder.route == "auto" else tuple(lines)


def _whole(key: str) -> str:
    """The key that an override sets: a schedule is given whole, and so is a student, which may be written in a short form."""
    return next((top for top in (*SCHEDULED, "student") if key == top or key.startswith(f"{top}.")), key)


def _bare(value: Any) -> Any:
    """A constant schedule as the number that stands for it."""
    constant = isinstance(value, dict) and value.get("kind") == "constant" and "start" in value
    return value["start"] if constant else value


def own_value(ladder: Ladder, dimension: Dimension) -> Value | None:
    """The dimension's value that leaves every stage as it is; None where it has none, or the stages have several."""
    if dimension.relative:
        one = 1.0 if not dimension.choices else next((choice for choice in dimension.choices if choice == 1), None)
        return one if dimension.choices or dimension.low <= 1 <= dimension.high else None
    stages = [stage.model_dump(mode="json") for stage in ladder.stages if stage.name in dimension.stages]
    found = [_bare(at(stage, dimension.key.split("."))) for stage in stages]
    if any(value != found[0] for value in found) or found[0] is None:
        return None
    if dimension.choices:
        return next((choice for choice in dimension.choices if choice == found[0]), None)
    is_number = isinstance(found[0], int | float) and not isinstance(found[0], bool)
    return found[0] if is_number and dimension.low <= found[0] <= dimension.high else None
