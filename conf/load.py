"""From a name or a path, and dotted overrides, to a `Ladder`. The only module that knows OmegaConf.

Overrides are applied to the raw YAML, then `defaults` are merged under every stage, interpolations resolved, and only then is the
whole validated: one place where a mistake is found, with one kind of message.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from conf.errors import UserError
from conf.mistakes import describe
from conf.schema import Ladder
from conf.words import at, suggest

SHIPPED = Path(__file__).with_name("ladders")
STAGE_KEY = re.compile(r"^stages(?:\[(?P<index>-?\d+)\]|\[(?P<word>[^\]]*)\]|\.(?P<name>[^.\[]+))(?P<rest>.*)$")


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
    # A key that lies in an interpolated part gets a copy of that part; the copy must be made after other overrides changed its source.
    for override in sorted(overrides, key=lambda text: _borrowed(raw, text)):
        _apply(raw, override)
    plain = _resolve(raw, path)
    if not isinstance(plain.get("stages", []), list):
        raise UserError.about("stages", plain["stages"], "a list of stages, each beginning with `- name: ...`", f"Correct {path}.")
    defaults = plain.pop("defaults", None) or {}
    if not isinstance(defaults, dict):
        raise UserError.about("defaults", defaults, "settings of a stage", f"Correct {path}.")
    written = {**plain, "defaults": defaults}
    plain["stages"] = [merge(defaults, stage) for stage in plain.get("stages", [])]
    try:
        ladder = Ladder.model_validate(plain)
    except ValidationError as error:
        raise UserError(describe(error, plain, written)) from None
    return Loaded(ladder, Path.cwd() if path.parent == SHIPPED else path.parent)


class _Dumper(yaml.SafeDumper):
    """Writes what `OmegaConf.load` reads back as it was."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # `${` would be read as an interpolation; and OmegaConf takes more texts for numbers, such as 1e5, than PyYAML expects and quotes.
    escaped = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped, style=None if text[:1].isalpha() else '"')


_Dumper.add_representer(str, _represent_text)


def to_yaml(ladder: Ladder) -> str:
    """Every setting of a ladder, defaults included, as YAML that loads again."""
    return yaml.dump(ladder.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def merge(defaults: Any, stage: Any) -> Any:
    """`stage` over `defaults`, mapping by mapping; lists and values of the stage win whole."""
    if not (isinstance(defaults, dict) and isinstance(stage, dict)):
        return stage
    return {**defaults, **{key: merge(defaults.get(key), value) for key, value in stage.items()}}


def _find(source: str) -> Path:
    known = shipped()
    if source in known:
        return known[source]
    path = Path(source).expanduser()
    if path.is_file():
        return path.absolute()
    names = ", ".join(known)
    raise UserError.about(
        "ladder",
        source,
        f"a shipped ladder ({names}) or the path of a YAML file",
        f"{suggest(source, known)}`ladder list` shows the shipped ones.",
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
    if _has_resolver(text):
        raise UserError.about(
            key, text, "a value, or an interpolation of another key", "Resolvers such as ${oc.env:...} are off in overrides."
        )
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        assert isinstance(value, dict)
        key = _by_index(raw, key)
        _make_own(raw, key)
        OmegaConf.update(raw, key, value["value"], merge=False, force_add=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, IndexError) as error:
        raise UserError.about(key, text, "a key of the ladder and a YAML value", f"{error}".splitlines()[0]) from error


def _has_resolver(text: str) -> bool:
    """Whether an interpolation in `text`, at any depth, calls a resolver: it has a colon inside `${...}`."""
    depth = 0
    for token in re.findall(r"\$\{|\}|:", text):
        if token == ":" and depth:
            return True
        depth = depth + 1 if token == "${" else max(depth - 1, 0) if token == "}" else depth
    return False


def _parts(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)


def _borrowed(raw: DictConfig, override: str) -> bool:
    """Whether the override's key lies in a part of the ladder that is an interpolation of another part."""
    key = override.partition("=")[0].strip()
    try:
        return _interpolated(raw, _parts(_by_index(raw, key))) is not None
    except (UserError, OmegaConfBaseException, ValueError, IndexError):
        return False  # `_apply` says what is wrong with it


def _interpolated(raw: DictConfig, parts: list[str]) -> tuple[Any, Any] | None:
    """The first interpolation above the end of a path: the container that holds it, and its key there."""
    node: Any = raw
    for part in parts[:-1]:
        place: Any = int(part) if isinstance(node, ListConfig) else part
        if OmegaConf.is_interpolation(node, place):
            return node, place
        node = node[place] if isinstance(node, ListConfig) or (isinstance(node, DictConfig) and place in node) else None
        if not isinstance(node, DictConfig | ListConfig):
            return None
    return None


def _make_own(raw: DictConfig, key: str) -> None:
    """Replace the interpolations that `key` leads through by copies: an override changes one of them, not what they were taken from."""
    while (found := _interpolated(raw, _parts(key))) is not None:
        holder, place = found
        holder[place] = copy.deepcopy(holder[place])


def _by_index(raw: DictConfig, key: str) -> str:
    """Write `stages.100k.x` and `stages[1].x` as `stages[1].x`, refusing a stage that is not there."""
    match = STAGE_KEY.match(key)
    if not match:
        return key
    stages = raw.get("stages")
    if not isinstance(stages, ListConfig):
        return key
    names = [str(stage.get("name", "")) if isinstance(stage, DictConfig) else "" for stage in stages]
    if match["index"] is None:
        name = match["name"] or match["word"]
        if name in names:
            return f"stages[{names.index(name)}]{match['rest']}"
        hint = suggest(name, names)
        raise UserError.about(
            "override", key, f"a stage of this ladder: {', '.join(names)}", f"{hint}Stages are named, or numbered as stages[0]."
        )
    if not -len(names) <= int(match["index"]) < len(names):
        raise UserError.about("override", key, f"stages[0] to stages[{len(names) - 1}]", f"The stages are {', '.join(names)}.")
    return f"stages[{int(match['index']) % len(names)}]{match['rest']}"


def _resolve(raw: DictConfig, path: Path) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "ladder")
        value = at(OmegaConf.to_container(raw, resolve=False), [int(p) if p.isdigit() else p for p in _parts(key)])
        why = str(error).splitlines()[0].rstrip(".")
        raise UserError.about(
            key, value, "a value, or an interpolation of a key that exists", f"{why}. Correct {path}, or give {key}=..."
        ) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
