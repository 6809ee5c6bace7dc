"""Teacher and student of different architectures: they learn, load again in plain transformers, and refuse what they cannot have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from benchmarks.architectures import synthetic
from benchmarks.pairs import PAIRS, Pair, tried
from conf.errors import UserError
from conf.schema.stage.objective import Feature
from conf.schema.stage.student import Shape, Student
from models.architectures.configs import build_from, fitted_config
from models.base.interface import Interface
from models.data.corpus import Corpus
from models.losses.features import Features
from models.students.initialise import make_student

pytestmark = pytest.mark.thorough

REFUSED = {"gemma2": ("chunked logits",), "mamba": ("parted documents",), "resnet": ("accumulation",)}  # of students; others: nothing
# One of each kind of student; the others run with the slow tests, and in the benchmark.
OFTEN = {
    "llama -> qwen3, causal-lm",
    "llama -> mamba, causal-lm",
    "bert -> distilbert, sequence-classification",
    "bert -> modernbert, similarity-kl, embedding",
    "vit -> convnext, image-classification",
    "vit -> resnet, image-classification",
}
SHAPE = Shape(hidden_size=32, layers=1, heads=2, feed_forward=32, tied_embeddings=False)


def named(pair: Pair) -> str:
    return f"{pair.name}, {pair.interface.workload}"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    place = tmp_path_factory.mktemp("corpora")
    interfaces = {pair.interface.workload: pair.interface for pair in PAIRS}
    return {workload: synthetic(place / workload, interface) for workload, interface in interfaces.items()}


@pytest.mark.parametrize(
    "pair", [pytest.param(pair, id=named(pair), marks=() if named(pair) in OFTEN else pytest.mark.slow) for pair in PAIRS]
)
def test_a_pair_learns_and_loads_again(pair: Pair, corpora: dict[str, Corpus], tmp_path: Path) -> None:
    transformers.logging.set_verbosity_error()
    found = tried(pair, corpora[pair.interface.workload], tmp_path / "student")
    assert found.difference == 0
    assert found.last < found.first
    assert found.student < found.teacher or pair.teacher == "convnext"
    assert found.refused == REFUSED.get(pair.student, ())


def model_of(kind: str, settings: dict[str, Any], interface: Interface) -> torch.nn.Module:
    return build_from(fitted_config({"model_type": kind, **settings}, interface, "config"), interface.workload, "config")


@pytest.mark.parametrize(
    ("place", "initialisation", "words"),
    [
        (4, "layers", "Here model_type is gpt_neox in the student and llama in the teacher"),
        (6, "prune", "for shape.family llama a teacher of type llama, mistral, qwen2, qwen3. The teacher is of type mamba"),
        (8, "prune", "for shape.family bert a teacher of type bert. The teacher is of type distilbert"),
        (-3, "prune", "random or layers, for shape.family vit, of which nothing is pruned"),
    ],
)
def test_first_weights_of_another_architecture_are_refused(place: int, initialisation: str, words: str) -> None:
    pair = PAIRS[place]
    family = {"causal-lm": "llama", "image-classification": "vit"}.get(pair.interface.workload, "bert")
    if initialisation == "layers":
        student = Student(config={"model_type": pair.student, **pair.below}, initialisation="layers")
        teacher = model_of(pair.teacher, pair.above, pair.interface)
    else:  # a student of the usual family from a teacher of another one
        student = Student(shape=SHAPE.model_copy(update={"family": family}), initialisation="prune")
        teacher = model_of(pair.student, pair.below, pair.interface)
    with pytest.raises(UserError, match=words):
        make_student(student, teacher, pair.interface, 0, "student", batches=list)


@pytest.mark.parametrize(
    ("place", "kind", "words"),
    [
        (6, "hidden", None),  # a Mamba has states of one width
        (-3, "hidden", "models whose states have one width; not ConvNext"),
        (-3, "minilm", r"encoders with attention \(BERT, ViT\); not ConvNext"),
        (9, "minilm", "encoders with query, key and value layers"),
    ],
)
def test_features_between_architectures(place: int, kind: str, words: str | None) -> None:
    pair = PAIRS[place]
    teacher, student = model_of(pair.teacher, pair.above, pair.interface), model_of(pair.student, pair.below, pair.interface)
    if words is None:
        assert len(list(Features((Feature.model_validate({"kind": kind}),), student, teacher, 0).parameters())) == 1
        return
    with pytest.raises(UserError, match=words):
        Features((Feature.model_validate({"kind": kind}),), student, teacher, 0)
