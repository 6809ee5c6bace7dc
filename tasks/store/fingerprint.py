"""Hash the settings that change numbers, as canonical JSON, before computing."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, TypeVar

T = TypeVar("T")


def canonical(value: Any, where: str = "identity") -> Any:
    """Reduce a value to a form that JSON writes in one way only.

    Raises:
        TypeError: Something without a stable identity, naming where it stands.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where} is {value}, which JSON cannot write; use None or a finite number")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; keys must be strings")
        return {key: canonical(value[key], f"{where}.{key}") for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}, which has no stable identity; pass a string, a number, a list or a mapping")


def fingerprint(identity: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `identity`, in hexadecimal."""
    text = json.dumps(canonical(identity), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Differences between two identities, one line each: `objective.alpha.start: 0.9 -> 0.5`."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += changes(before, after, f"{prefix}{key}.")
        elif canonical(before) != canonical(after):
            lines.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value) or "none"
    text = str(value)
    return text[:12] if len(text) == 64 else text
