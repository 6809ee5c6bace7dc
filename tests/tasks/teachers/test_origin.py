"""Licence and base model of a root teacher: from its card, its GGUF file, the settings, or from nobody."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tasks.runtime.runs.run_registry import Context
from tasks.teachers.origin import Origin, origin_of
from tests.factories import ladder_of_file, model_record

STAGES = [{"name": "small", "student": {"shape": {"hidden_size": 8, "layers": 1, "heads": 1, "feed_forward": 8}}, "training": {"steps": 1}}]


def origin(base: Path, path: str, store: str = "", **settings: Any) -> Origin:
    ladder = ladder_of_file(teacher={"source": "checkpoint", "path": path}, stages=STAGES, **settings)
    return origin_of(ladder, model_record("teacher", folder=store), Context(run="r", ladder="tiny", home=str(base), base=str(base)))


def card(folder: Path, front: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\n{front}\n---\n\n# Text\n")
    return folder


def gguf(path: Path, *pairs: tuple[str, int, bytes]) -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    body = b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in pairs)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body)
    return path


def words(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def test_the_card_of_a_folder(tmp_path: Path) -> None:
    card(tmp_path / "model", "license: apache-2.0\nbase_model: [someone/large, someone/else]\ntags: [x]")
    assert origin(tmp_path, "model").facts() == {"license": "apache-2.0", "base_model": "someone/large"}
    assert origin(tmp_path, "model").stated_by == "README.md"


def test_the_card_in_the_store_comes_first(tmp_path: Path) -> None:
    card(tmp_path / "model", "license: mit")
    kept = card(tmp_path / "kept", "license: other\nlicense_name: Own licence 2\nlicense_link: https://example.org/licence")
    assert origin(tmp_path, "model", str(kept)).facts() == {
        "license": "other",
        "license_name": "Own licence 2",
        "license_link": "https://example.org/licence",
    }
    assert origin(tmp_path, "gone", str(kept)).license == "other", "the checkpoint's own folder may be gone"


def test_the_settings_go_before(tmp_path: Path) -> None:
    card(tmp_path / "model", "license: mit\nbase_model: someone/large")
    found = origin(tmp_path, "model", license="cc-by-4.0")
    assert (found.license, found.base_model, found.stated_by) == ("cc-by-4.0", "someone/large", "the settings")


def test_the_head_of_a_gguf_file(tmp_path: Path) -> None:
    several = struct.pack("<IQ", 8, 2) + words("en") + words("de")
    gguf(
        tmp_path / "one.gguf",
        ("general.architecture", 8, words("llama")),
        ("general.languages", 9, several),
        ("general.file_type", 4, struct.pack("<I", 3)),
        ("general.license", 8, words("Apache-2.0")),
        ("general.base_model.0.repo_url", 8, words("https://huggingface.co/someone/large")),
        ("llama.block_count", 4, struct.pack("<I", 1)),
    )
    assert origin(tmp_path, "one.gguf").facts() == {"license": "apache-2.0", "base_model": "someone/large"}


@pytest.mark.parametrize(
    "front",
    [
        "license: [mit]",
        "license: 'MIT\\nbase_model: evil/model'",
        "license: {a: b}\nbase_model: https://example.org",
        "base_model: ../../etc/passwd",
        "- a list",
        "license: &a [*a]",
        "license: mit: apache",
        "!!python/object/apply:os.system [true]",
        "license: unknown licence of ours",
    ],
)
def test_nothing_is_claimed_that_a_card_does_not_say_properly(tmp_path: Path, front: str) -> None:
    card(tmp_path / "model", front)
    assert origin(tmp_path, "model") == Origin()


@pytest.mark.parametrize("content", [b"GGUF", b"GGUF" + b"\xff" * 60, b"", b"PK\x03\x04"])
def test_a_damaged_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.gguf").write_bytes(content)
    assert origin(tmp_path, "one.gguf") == Origin()


def test_without_a_card_or_a_teacher_of_others_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert origin(tmp_path, "model") == Origin()
    assert origin(tmp_path, "someone/large") == Origin(base_model="someone/large"), "not in the Hub's cache, and nobody is asked"
