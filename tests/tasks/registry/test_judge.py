"""Judgements: paired bounds against delta, rows that a model was trained on, limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from conf.home import Home
from conf.schema.shipping.promotion import PromotionRules
from models.data.corpus import SPLITS
from models.evaluation.paired import DocumentScores
from tasks.registry.held_out import fresh_source, same_ids, trained_on
from tasks.registry.judge import Contest, _over_limits, _quality
from tasks.registry.versions import Version
from tasks.runtime.runs.run_registry import Context
from tests.factories import corpus_in, ladder_of_file, split_of

STAGES: dict[str, Any] = {
    "teacher": {"source": "checkpoint", "path": "x"},
    "stages": [{"name": "small", "student": {"parameters": 1000}, "training": {"steps": 1, "batch_size": 1, "learning_rate": 1e-3}}],
}


def asked(workload: str = "sequence-classification", **rules: Any) -> Contest:
    ladder = ladder_of_file(**STAGES).model_copy(update={"workload": workload})
    context = Context(run="r", ladder="tiny", home="/nowhere", base="/nowhere")
    challenger = Version("tiny", "1", (), "r", "small", "f" * 64, "w" * 64, Path("model"), ladder.workload, {})
    return Contest(Home(Path("/nowhere")), challenger, None, ladder, PromotionRules(**rules), context)


def scores(right: np.ndarray, weight: np.ndarray | None = None) -> DocumentScores:
    ones = np.ones(len(right))
    return DocumentScores(np.arange(len(right)), right.astype(np.float64), ones if weight is None else weight, ones.astype(np.int64))


def paired(worse: int, better: int, rows: int) -> dict[str, DocumentScores]:
    """Champion and challenger that differ in so many answers."""
    champion, challenger = np.ones(rows), np.ones(rows)
    challenger[:worse], champion[worse : worse + better] = 0, 0
    return {"champion": scores(champion), "challenger": scores(challenger)}


@pytest.mark.parametrize(
    ("worse", "better", "rows", "passes"),
    [
        (0, 0, 2000, True),  # the same answers to enough rows
        (0, 0, 200, False),  # none differs of 200: up to 1.8 % may
        (5, 5, 4000, True),
        (5, 60, 4000, True),
        (60, 5, 4000, False),
        (20, 20, 1000, False),  # no difference seen, and one of 1.2 % not ruled out
    ],
)
def test_a_challenger_passes_where_a_loss_of_delta_is_ruled_out(worse: int, better: int, rows: int, passes: bool) -> None:
    found = _quality(paired(worse, better, rows), asked(delta=0.01))
    assert found["difference"] == pytest.approx((better - worse) / rows)
    assert found["low"] <= found["difference"] <= found["high"]
    assert (found["reasons"] == ()) == passes
    assert (found["low"] >= -0.01) == passes


def test_bits_count_downwards() -> None:
    generator, rows = np.random.default_rng(0), 400
    bytes_, noise = generator.integers(100, 1000, rows).astype(np.float64), generator.normal(0, 5, rows)
    champion, challenger = scores(2.0 * bytes_, bytes_), scores(1.9 * bytes_ + noise, bytes_)
    found = _quality({"champion": champion, "challenger": challenger}, asked("causal-lm"))
    assert found["difference"] == pytest.approx(0.1, abs=0.01)
    assert found["reasons"] == ()
    worse = _quality({"champion": challenger, "challenger": champion}, asked("causal-lm"))
    assert worse["difference"] == pytest.approx(-found["difference"])
    assert "promotion.delta allows 0.0100 bits/byte" in worse["reasons"][0]


def test_too_few_rows_decide_nothing() -> None:
    found = _quality(paired(0, 20, 50), asked())
    assert found["reasons"][0].startswith("too few examples: 50 of 50 documents; promotion.min_rows asks 100")


def test_a_first_champion_has_nobody_to_beat() -> None:
    found = _quality({"challenger": scores(np.ones(200))}, asked())
    assert (found["champion"], found["challenger"], found["reasons"]) == (None, 1.0, ())


@pytest.mark.parametrize(
    ("rules", "latency", "expected"),
    [
        ({"max_latency_ms": 5}, {"challenger": 4.0}, 0),
        ({"max_latency_ms": 5}, {"challenger": 6.0}, 1),
        ({"max_latency_ms": 5}, {}, 1),  # an unknown time opens no gate
        ({"max_slower": 1.5}, {"challenger": 6.0, "champion": 3.0}, 1),
        ({"max_slower": 2.5}, {"challenger": 6.0, "champion": 3.0}, 0),
        ({"max_mib": 1}, {}, 1),
        ({"max_mib": 3}, {}, 0),
        ({}, {}, 0),
    ],
)
def test_limits(rules: dict[str, Any], latency: dict[str, float], expected: int) -> None:
    assert len(_over_limits(PromotionRules(**rules), latency, {"challenger": 2.0, "champion": 2.0})) == expected


def test_judged_documents_that_a_model_was_trained_on_are_found(tmp_path: Path) -> None:
    def corpus(name: str, train: list[list[int]], valid: list[list[int]]):
        def part(documents: list[list[int]]):
            count = len(documents)
            return split_of(documents, [0] * count, [0] * count, [len(d) for d in documents])

        splits = {"train": part(train), "valid": part(valid), "test": part([[9, 9]])}
        return corpus_in(tmp_path / name, "sequence-classification", 8, splits, classes=2)

    own = corpus("own", [[1, 2], [3], [4, 5]], [[6]])
    judged = corpus("judged", [[7, 7]], [[3], [8], [4, 5], [4]])
    assert trained_on(own, judged, ("valid",)).tolist() == [1, 3]
    assert trained_on(own, judged, ("train", "valid")).tolist() == [1, 3]
    assert trained_on(own, own, ("valid", "test")).tolist() == []
    assert same_ids(own, judged)
    longer = corpus_in(tmp_path / "longer", "sequence-classification", 16, {name: own.split(name) for name in SPLITS}, classes=2)
    assert not same_ids(own, longer)


def test_fresh_rows_have_the_columns_of_the_ladder(tmp_path: Path) -> None:
    ladder = ladder_of_file(**STAGES)
    data = ladder.data.model_copy(update={"columns": replace_columns(ladder.data, text="body"), "max_documents": 10})
    fresh = fresh_source(str(tmp_path / "x.csv"), ladder.model_copy(update={"data": data}))
    assert (fresh.paths, fresh.columns.text, fresh.max_documents) == ((str(tmp_path / "x.csv"),), "body", None)


def replace_columns(data: Any, **names: str) -> Any:
    return data.columns.model_copy(update=names)


def test_delta_is_checked() -> None:
    from tasks.registry.judge import with_delta

    assert with_delta(PromotionRules(), 0.5).delta == 0.5
    with pytest.raises(UserError, match="--delta"):
        with_delta(PromotionRules(), -1)
    assert replace(asked(), rules=with_delta(PromotionRules(), None)).rules.delta == 0.01
