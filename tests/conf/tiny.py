"""A ladder of two stages in a few lines, and the message of a bad one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.loading.load import load

TINY = """
name: tiny
data: {source: python-stdlib}
defaults:
  objective: {alpha: 0.6}
  training: {steps: 5, batch_size: 8}
teacher:
  source: train
  shape: {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}
  training: ${defaults.training}
stages:
  - name: 100k
    student: {shape: {hidden_size: 8, layers: 2, heads: 2, feed_forward: 16}}
  - name: small
    student: {shape: {hidden_size: 8, layers: 1, heads: 2, feed_forward: 16}}
    training: {steps: 7}
    objective: {temperature: 3}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "ladder.yaml"
    path.write_text(text)
    return str(path)


def refused(source: str, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(UserError) as caught:
        load(source, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)
