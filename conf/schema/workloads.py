"""Traits of workloads: whether models read pictures, and answer in ids."""

from __future__ import annotations

IN_IDS = ("causal-lm", "image-text")
WITH_PICTURES = ("image-classification", "image-text")


def answers_in_ids(workload: str) -> bool:
    """Whether models of a workload predict ids of a vocabulary, each from those before it; else an example has one answer."""
    return workload in IN_IDS


def reads_pictures(workload: str) -> bool:
    """Whether models of a workload take pictures, alone or beside a text."""
    return workload in WITH_PICTURES
