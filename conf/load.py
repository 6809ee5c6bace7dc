"""From a name or a path, and dotted overrides, to a `Ladder`. The only module that knows OmegaConf.

Overrides are applied to the raw YAML, then `defaults` are merged under every stage, interpolations resolved, and only then is the
whole validated: one place where a mistake is found, with one kind of message.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from conf.errors import UserError
from conf.schema import Ladder

SHIPPED = Path(__file__).with_name("ladders")
STAGE_KEY = re.compile(r"^stages(?:\[(?P<index>-?\d+)\]|\.(?P<name>[^.\[]+))(?P<rest>.*)$")
# Pydantic puts the name of a union's member into the location of an error; nobody wrote it in their YAML.
UNION_TAGS = {"python-stdlib", "digits", "files", "dataset", "train", "checkpoint"}


class Loaded(NamedTuple):
    """A validated ladder, and the folder that its relative paths count from."""

    ladder: Ladder
    base: Path


def shipped() -> dict[str, Path]:
    """Name to file of the ladders that come with the project."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load(source: str, overrides: Sequence[str] = ()) -> Loaded:
    """Load a ladder.

    Args:
        source: Name of a shipped ladder, or path of a YAML file.
        overrides: `key=value` with dotted keys, such as `stages[1].objective.alpha=0.5` or `stages.100k.training.steps=50`.

    Raises:
        UserError: Unknown ladder, unreadable YAML, an override that matches nothing, or a value that the schema refuses.
    """
    path = _find(source)
    raw = _read(path)
    for override in overrides:
        _apply(raw, override)
    plain = _resolve(raw, path)
    if not isinstance(plain.get("stages", []), list):
        raise UserError.about("stages", plain["stages"], "a list of stages, each beginning with `- name: ...`", f"Correct {path}.")
    defaults = plain.pop("defaults", None) or {}
    if not isinstance(defaults, dict):
        raise UserError.about("defaults", defaults, "settings of a stage", f"Correct {path}.")
    plain["stages"] = [merge(defaults, stage) for stage in plain.get("stages", [])]
    try:
        ladder = Ladder.model_validate(plain)
    except ValidationError as error:
        raise UserError(describe(error, plain)) from None
    return Loaded(ladder, Path.cwd() if path.parent == SHIPPED else path.parent)


def to_yaml(ladder: Ladder) -> str:
    """Every setting of a ladder, defaults included, as YAML that loads again."""
    return yaml.safe_dump(ladder.model_dump(mode="json"), sort_keys=False, width=100, allow_unicode=True)


def merge(defaults: Any, stage: Any) -> Any:
    """`stage` over `defaults`, mapping by mapping; lists and values of the stage win whole."""
    if not (isinstance(defaults, dict) and isinstance(stage, dict)):
        return stage
    return {**defaults, **{key: merge(defaults.get(key), value) for key, value in stage.items()}}


def suggest(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? ` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}? " if close else ""


def _find(source: str) -> Path:
    known = shipped()
    if source in known:
        return known[source]
    path = Path(source).expanduser()
    if path.is_file():
        return path.absolute()
    names = ", ".join(known)
    raise UserError.about(
        "ladder", source, f"a shipped ladder ({names}) or the path of a YAML file", f"{suggest(source, known)}`ladder list` shows the shipped ones."
    )


def _read(path: Path) -> DictConfig:
    try:
        raw = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError.about("ladder", str(path), "a readable YAML file", f"It does not parse: {error}") from error
    if not isinstance(raw, DictConfig):
        raise UserError.about("ladder", str(path), "a YAML mapping with name, data, teacher and stages", "Start from a shipped ladder.")
    return raw


def _apply(raw: DictConfig, override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError.about("override", override, "key=value", "For instance stages[0].objective.alpha=0.5.")
    if re.search(r"\$\{[^}]*:", text):
        raise UserError.about(key, text, "a value, or an interpolation of another key", "Resolvers such as ${oc.env:...} are off in overrides.")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        assert isinstance(value, dict)
        OmegaConf.update(raw, _by_index(raw, key), value["value"], merge=False, force_add=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, IndexError) as error:
        raise UserError.about(key, text, "a key of the ladder and a YAML value", f"{error}".splitlines()[0]) from error


def _by_index(raw: DictConfig, key: str) -> str:
    """Write `stages.100k.x` and `stages[1].x` as `stages[1].x`, refusing a stage that is not there."""
    match = STAGE_KEY.match(key)
    if not match:
        return key
    stages = raw.get("stages")
    if not isinstance(stages, ListConfig):
        return key
    names = [str(stage.get("name", "")) if isinstance(stage, DictConfig) else "" for stage in stages]
    if match["name"] is not None:
        if match["name"] in names:
            return f"stages[{names.index(match['name'])}]{match['rest']}"
        hint = suggest(match["name"], names)
        raise UserError.about("override", key, f"a stage of this ladder: {', '.join(names)}", f"{hint}Stages are named, or numbered as stages[0].")
    if not -len(names) <= int(match["index"]) < len(names):
        raise UserError.about("override", key, f"stages[0] to stages[{len(names) - 1}]", f"The stages are {', '.join(names)}.")
    return f"stages[{int(match['index']) % len(names)}]{match['rest']}"


def _resolve(raw: DictConfig, path: Path) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "ladder"
        raise UserError.about(str(key), str(path), "a key with a value", f"{str(error).splitlines()[0]} Give it in the file, or as {key}=...") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def describe(error: ValidationError, plain: dict[str, Any]) -> str:
    """One line for each mistake that pydantic found: dotted key, value, what is allowed, remedy."""
    lines = [_line(dict(detail), plain) for detail in error.errors()]
    return "\n".join(dict.fromkeys(lines))


def _line(detail: dict[str, Any], plain: dict[str, Any]) -> str:
    parts = [part for part in detail["loc"] if part not in UNION_TAGS]
    key = _dotted(parts, plain)
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = _known_keys(parts[:-1], plain)
        return f"{key}: unknown key; {suggest(str(parts[-1]), known)}allowed here: {', '.join(known)}. `ladder explain` describes each."
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default. `ladder explain {_plain_key(parts)}` describes it."
    if detail["type"] == "value_error":
        return f"{key}: {message}." if key else f"{message}."
    remedy = f"`ladder explain {_plain_key(parts)}` describes it." if parts else ""
    return f"{key}: got {detail.get('input')!r}; {message[:1].lower() + message[1:]}. {remedy}".rstrip()


def _dotted(parts: list[Any], plain: dict[str, Any]) -> str:
    """`stages[1].objective.alpha`, without the `start` that a bare number stands for."""
    if parts and parts[-1] == "start" and not isinstance(_at(plain, parts[:-1]), dict):
        parts = parts[:-1]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).removeprefix(".")


def _plain_key(parts: list[Any]) -> str:
    return ".".join(str(p) for p in parts if not isinstance(p, int))


def _at(value: Any, parts: Iterable[Any]) -> Any:
    for part in parts:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _known_keys(parts: list[Any], plain: dict[str, Any]) -> list[str]:
    model: Any = Ladder
    for depth, part in enumerate(parts):
        if not isinstance(part, int):
            model = member(model, str(part), _at(plain, parts[: depth + 1]))
    return list(model.model_fields) if model is not None else []


def member(model: type[BaseModel], key: str, value: Any = None) -> type[BaseModel] | None:
    """The settings class of field `key`; of a union, the one that `value['source']` names, or else the first."""
    if model is None or key not in model.model_fields:
        return None
    found = classes(model.model_fields[key].annotation)
    if isinstance(value, dict) and "source" in value:
        found = [c for c in found if "source" in c.model_fields and c.model_fields["source"].default == value["source"]] or found
    return found[0] if found else None


def classes(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes inside a type, such as those of a union or a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in classes(inner)]
