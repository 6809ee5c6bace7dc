"""Licence and base model of a root teacher, which its students carry on.

Read from the front matter of the teacher's model card (https://huggingface.co/docs/hub/model-cards#model-card-metadata), or from the head
of its GGUF file. Nobody is asked for them, and nothing is claimed that they do not say: the ladder's `license` alone goes before.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.schema.ladder import LICENSE, Ladder
from conf.schema.teacher import CheckpointTeacher
from models.architectures.gguf_head import read_general
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.teachers.teacher_source import CARD, HUB_ID, RECORDED, gguf_file, is_local

LONGEST = 1 << 16  # bytes of a card that are read
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
NAME = re.compile(r"[\w.+() /:-]{1,200}")  # of a licence that is not the Hub's, and its address
HUB = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/?")


@dataclass(frozen=True)
class Origin:
    """A root teacher's metadata: licence and base model; None: not stated.

    Attributes:
        license: Id of its licence on the Hub, such as `apache-2.0`, or `other`.
        license_name: Name of another licence.
        license_link: Its address, or its file.
        base_model: Id on the Hub of the teacher, or of the model that it was made from.
        stated_by: Who says which licence it is: `the settings`, or the name of the teacher's file.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    stated_by: str | None = None

    def facts(self) -> dict[str, str]:
        """Known values, by the names of the card's metadata."""
        keys = ("license", "license_name", "license_link", "base_model")
        return {key: value for key in keys if (value := getattr(self, key)) is not None}


def origin_of(ladder: Ladder, root: StageRecord, context: Context) -> Origin:
    """Licence and base model of a ladder's root; nobody is asked over the network."""
    teacher, found = ladder.teacher, Origin()
    if isinstance(teacher, CheckpointTeacher):
        hub = hub_id(teacher, context)
        cards = [Path(root.folder) / CARD, *_sources(teacher, context, hub)]
        found = next(filter(None, map(_stated, cards)), found)
        found = Origin(found.license, found.license_name, found.license_link, hub or found.base_model, found.stated_by)
    return Origin(ladder.license, base_model=found.base_model, stated_by="the settings") if ladder.license else found


def hub_id(teacher: object, context: Context) -> str | None:
    """The teacher's id on the Hub; None where it was made here, or came from a file, a package or MLflow."""
    if not isinstance(teacher, CheckpointTeacher) or is_local(teacher, context) or not HUB_ID.match(teacher.path):
        return None
    return teacher.path


def _sources(teacher: CheckpointTeacher, context: Context, hub: str | None) -> list[Path]:
    """The teacher's card or GGUF file where it came from."""
    if hub is not None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(hub, CARD, revision=teacher.revision)
        return [Path(cached)] if isinstance(cached, str) else []
    if teacher.path.startswith(RECORDED) or not is_local(teacher, context):
        return []
    place = gguf_file(teacher, context)
    return [place / CARD] if os.path.isdir(place) else [place]


def _stated(file: Path) -> Origin | None:
    """Metadata of a card or a GGUF file; None where the file is missing or holds nothing of use."""
    if not file.is_file():
        return None
    stated = _front_matter(file) if file.suffix == ".md" else _head(file)
    license_id, name, link = (_text(stated.get(key)) for key in ("license", "license_name", "license_link"))
    license_id = license_id if license_id and re.fullmatch(LICENSE, license_id) else None
    other = license_id == "other"
    base = stated.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    base = base if isinstance(base, str) and HUB_ID.fullmatch(base) and "/" in base else None
    if license_id is None and base is None:
        return None
    return Origin(license_id, name if other else None, link if other else None, base, file.name if license_id else None)


def _front_matter(file: Path) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as opened:
            found = FRONT_MATTER.match(opened.read(LONGEST))
        stated = yaml.safe_load(found[1]) if found else None
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _head(file: Path) -> dict[str, Any]:
    stated = read_general(file)
    base = HUB.fullmatch(stated.get("base_model.0.repo_url", ""))
    renamed = {"license": stated.get("license", "").lower(), "license_name": stated.get("license.name")}
    return {**renamed, "license_link": stated.get("license.link"), "base_model": base[1] if base else None}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and NAME.fullmatch(value) else None
