"""Load a ladder from a name or path and dotted overrides.

The only module that imports OmegaConf. Overrides are applied to the raw YAML, `defaults` merged under every stage and interpolations
resolved; then the whole is validated, so that every mistake gets the same kind of message.
"""

from __future__ import annotations

import copy
import functools
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from conf.errors import UserError, foreign_errors
from conf.loading.introspect import at, suggest
from conf.loading.messages import describe
from conf.loading.short_forms import written_out
from conf.loading.yaml_output import escaped, to_yaml
from conf.loading.yaml_text import LOADER, check_growth, check_nesting, read_yaml_text
from conf.schema.ladder import Ladder

SHIPPED = Path(__file__).parents[1] / "ladders"
PLAIN = re.compile(r"\$\{[\w.\[\]-]+\}")
STAGE_KEY = re.compile(r"^stages(?:\[(?P<index>-?\d+)\]|\[(?P<word>[^\]]*)\]|\.(?P<name>[^.\[]+))(?P<rest>.*)$")


class Loaded(NamedTuple):
    """A validated ladder, and the folder that its relative paths count from."""

    ladder: Ladder
    base: Path


def shipped() -> dict[str, Path]:
    """Name to file of the ladders that come with the project."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


@functools.cache
def stage_names(ladder: str) -> tuple[str, ...]:
    """Names of the stages of a shipped ladder, as its file has them."""
    stages = yaml.load(shipped()[ladder].read_text(encoding="utf-8"), Loader=LOADER)["stages"]
    return tuple(str(stage["name"] if isinstance(stage, dict) else stage) for stage in stages)


def load(source: str, overrides: Sequence[str] = ()) -> Loaded:
    """Load a ladder.

    Args:
        source: Name of a shipped ladder, or path of a YAML file.
        overrides: `key=value` with dotted keys, such as `stages[1].objective.alpha=0.5` or `stages.100k.training.steps=50`.

    Raises:
        UserError: Unknown ladder, unreadable YAML, an override that matches nothing, or a value that the schema refuses.
    """
    path = _find(source)
    return _load(_read(path), overrides, path, Path.cwd() if path.parent == SHIPPED else path.parent)


def load_whole(ladder: Ladder, overrides: Sequence[str] = ()) -> Loaded:
    """Apply overrides to a ladder that is given in full; its relative paths count from the working directory.

    Raises:
        UserError: As `load`.
    """
    raw = OmegaConf.create(to_yaml(ladder))
    assert isinstance(raw, DictConfig)
    return _load(raw, overrides, Path("the given ladder"), Path.cwd())


def load_text(text: str, base: Path, name: str) -> Loaded:
    """Load the text of a ladder that is in no file yet.

    Args:
        text: YAML.
        base: Folder that its relative paths count from.
        name: Of the text, for messages.

    Raises:
        UserError: As `load`.
    """
    raw = OmegaConf.create(text)
    assert isinstance(raw, DictConfig)
    return _load(raw, (), Path(name), base)


def _load(raw: DictConfig, overrides: Sequence[str], path: Path, base: Path) -> Loaded:
    _check_growth(raw, path)
    broken = _settle(raw)
    _write_out(raw, base)
    # A key that lies in an interpolated part gets a copy of that part; the copy must be made after other overrides changed its source.
    for override in sorted(overrides, key=lambda text: _borrowed(raw, text)):
        _apply(raw, override)
        _write_out(raw, base)
    _check_growth(raw, path)
    plain = _resolve(raw, path, broken)
    plain |= written_out(plain, base)  # of the values that interpolations gave
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
    return Loaded(ladder, base)


def _check_growth(raw: DictConfig, path: Path) -> None:
    plain = OmegaConf.to_container(raw, resolve=False)
    assert isinstance(plain, dict)
    check_growth({str(key): value for key, value in plain.items()}, str(path))


def _write_out(raw: DictConfig, base: Path) -> None:
    """Write short forms out, so that overrides find the settings that they stand for."""
    plain = OmegaConf.to_container(raw, resolve=False)
    assert isinstance(plain, dict)
    for key, value in written_out({str(key): value for key, value in plain.items()}, base).items():
        raw[key] = value


def merge(defaults: Any, stage: Any) -> Any:
    """`stage` over `defaults`, mapping by mapping; lists and values of the stage win whole."""
    if not (isinstance(defaults, dict) and isinstance(stage, dict)):
        return stage
    return {**defaults, **{key: merge(defaults.get(key), value) for key, value in stage.items()}}


def _find(source: str) -> Path:
    ladders = shipped()
    if source in ladders:
        return ladders[source]
    path = Path(os.path.expanduser(source))
    if path.is_file():
        return path.absolute()
    names = ", ".join(ladders)
    raise UserError.about(
        "ladder",
        source,
        f"a shipped ladder ({names}) or the path of a YAML file",
        f"{suggest(source, ladders)}`ladder list` shows the shipped ones.",
    )


def _read(path: Path) -> DictConfig:
    text = read_yaml_text(path, "ladder", "`ladder list` shows examples.")
    with foreign_errors("ladder", str(path), "a readable YAML file of settings", "It does not parse.", "OmegaConf"):
        raw = OmegaConf.load(io.StringIO(text))
    if not isinstance(raw, DictConfig):
        raise UserError.about("ladder", str(path), "a YAML mapping with name, data, teacher and stages", "Start from a shipped ladder.")
    return raw


def _apply(raw: DictConfig, override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key or not key.isprintable():
        raise UserError.about("override", override, "key=value", "For instance stages[0].objective.alpha=0.5.")
    if not _is_plain(text):
        raise _no_resolvers(key, text)
    with foreign_errors(key, text, "a key of the ladder and a YAML value", says="OmegaConf"):
        check_nesting(text, key, "the value")
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        assert isinstance(value, dict)
        if not all(map(_is_plain, _texts(value["value"]))):  # YAML has escapes of its own: "\x24{oc.env:HOME}"
            raise _no_resolvers(key, text)
        key = _by_index(raw, key)
        _make_own(raw, key)
        OmegaConf.update(raw, key, value["value"], merge=False, force_add=True)


def _no_resolvers(key: str, text: str) -> UserError:
    remedy = "Resolvers such as ${oc.env:...} are off in overrides."
    return UserError.about(key, text, "a value, or an interpolation of another key", remedy)


def _is_plain(text: str) -> bool:
    """Whether every interpolation in a text, if there is any, is the bare path of another key: no resolver, no nesting, no escape."""
    return "${" not in PLAIN.sub("", text)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, at any depth."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)


def _settle(raw: DictConfig | ListConfig) -> dict[str, OmegaConfBaseException]:
    """Replace a file's own resolvers by their values before any override is applied, so that none reads a value of an override.

    Returns:
        The texts that could not be evaluated, with the reason: no mistake where an override replaces them.
    """
    broken: dict[str, OmegaConfBaseException] = {}
    texts: Any = OmegaConf.to_container(raw, resolve=False)
    for place in range(len(raw)) if isinstance(raw, ListConfig) else list(raw):
        holder, text = cast(Any, raw), texts[place]
        if isinstance(text, str) and _is_plain(text):
            continue
        try:
            if isinstance(text, str):
                value = copy.deepcopy(holder[place])
                holder[place] = escaped(value) if isinstance(value, str) else value
            if isinstance(holder[place], DictConfig | ListConfig):
                broken |= _settle(holder[place])
        except OmegaConfBaseException as error:
            broken[text] = error
    return broken


def _parts(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)


def _borrowed(raw: DictConfig, override: str) -> bool:
    """Whether the override's key lies in a part of the ladder that is an interpolation of another part."""
    key = override.partition("=")[0].strip()
    try:
        return _interpolated(raw, _parts(_by_index(raw, key))) is not None
    except (UserError, OmegaConfBaseException, ValueError, IndexError):
        return False  # `_apply` refuses it with a message


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
    """Replace the interpolations that `key` leads through by copies: an override changes one of them, not the original."""
    while (found := _interpolated(raw, _parts(key))) is not None:
        holder, place = found
        if not isinstance(holder[place], DictConfig | ListConfig):
            return  # a text, which written back would be read as an interpolation once more
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


def _resolve(raw: DictConfig, path: Path, broken: dict[str, OmegaConfBaseException]) -> dict[str, Any]:
    try:
        for text in _texts(OmegaConf.to_container(raw, resolve=False)):
            if text in broken:
                raise broken[text]
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
