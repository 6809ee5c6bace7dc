"""A ladder of embeddings, step by step: data and pairs, teacher, students, figures, the published folder and MLflow's form of it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import transformers
from scipy.stats import spearmanr

from conf.errors import UserError
from conf.schema.ladder import Ladder
from models.architectures.checkpoint import load_model, save_model
from models.base.quality import learned_nothing, retention
from models.data import tokenizers
from models.data.held_out import evaluation_batches, pair_batches
from models.embeddings.encoder import SentenceEncoder
from models.embeddings.pooling import Pooling, set_pooling
from models.evaluation.embedding_quality import embed
from tasks.data.pairs import read_pairs
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import StageRecord
from tasks.report import tables
from tasks.report.sections import curves, outcome, quality
from tasks.runtime.stage_inputs import StageInputs
from tasks.search.plan import plan_search
from tasks.search.space import default_space
from tasks.teachers.quality import accept_teacher
from tasks.teachers.teacher import prepare_teacher
from tasks.tracking.packaging.package import About, write_package
from tasks.training.student import train_student
from tests.factories import inputs_of, run_record

TRAINING = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "validate_every": 3}
TEXTS = [f"{subject} {verb} {n}" for n in range(6) for subject in ("a dog", "the market", "one ship") for verb in ("runs", "fell")]
CPU = torch.device("cpu")


def write_teacher(folder: Path, **pooling: Any) -> None:
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=tokenizers.BYTES_VOCABULARY,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    set_pooling(config, Pooling(**pooling))
    torch.manual_seed(0)
    tokenizers.save(tokenizers.append_end(tokenizers.bytes_tokenizer()), folder.parent / "tokenizer")
    save_model(SentenceEncoder(config), folder, folder.parent / "tokenizer")


def write_pairs(file: Path, rows: list[tuple[str, str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("sentence1", "sentence2", "score"), *rows])


def ladder_of(**changes: Any) -> Ladder:
    shape = {"family": "bert", "hidden_size": 16, "layers": 1, "heads": 1, "feed_forward": 32}
    plain = {
        "name": "tiny",
        "workload": "embedding",
        "data": {
            "source": "files",
            "paths": ["texts.csv"],
            "sequence_length": 24,
            "valid_fraction": 0.3,
            "test_fraction": 0.1,
            "pairs": {"paths": ["pairs.csv"]},
        },
        "tokenizer": {"kind": "teacher"},
        "teacher": {"source": "checkpoint", "path": "teacher"},
        "stages": [
            {"name": "cut", "student": {"shape": shape, "initialisation": "prune", "samples": 8}, "training": TRAINING},
            {
                "name": "new",
                "student": {
                    "config": {
                        "model_type": "distilbert",
                        "dim": 8,
                        "n_layers": 1,
                        "n_heads": 1,
                        "hidden_dim": 16,
                        "max_position_embeddings": 24,
                    }
                },
                "objective": {"kind": "similarity-kl", "temperature": 0.1},
                "teachers": ["root"],
                "training": {**TRAINING, "patience": 5},
            },
        ],
        "compute": {"at_once": None, "device": "cpu"},
    }
    return Ladder.model_validate(plain | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageInputs, list[StageRecord]]:
    """A teacher whose projection makes 12 numbers of 32, and two students."""
    base = tmp_path_factory.mktemp("embeddings")
    write_teacher(base / "teacher", size=12)
    (base / "texts.csv").write_text("\n".join(["text", *TEXTS]) + "\n", encoding="utf-8")
    write_pairs(base / "pairs.csv", [(TEXTS[n], TEXTS[(7 * n) % 36], n % 5) for n in range(1, 30)])
    ladder = ladder_of()
    inputs = inputs_of(ladder, base)
    lineage = [accept_teacher(evaluate_model(prepare_teacher(inputs), [], inputs, "fp32"), inputs)]
    for stage in ladder.stages:
        lineage.append(evaluate_model(train_student(stage, lineage, inputs), lineage, inputs, "fp32"))
    return inputs, lineage


def test_figures_are_those_of_the_embeddings(made: tuple[StageInputs, list[StageRecord]]) -> None:
    inputs, (root, cut, new) = made
    corpus = inputs.data.corpus()
    texts = {
        record.name: embed(load_model(Path(record.folder), "embedding"), evaluation_batches(corpus, "valid", 1000, 7), CPU, "fp32")
        for record in (root, cut, new)
    }
    assert texts["new"].shape == (corpus.info.documents["valid"], 12)
    assert cut.metrics["cosine"] == pytest.approx(float((texts["cut"] * texts["teacher"]).sum(1).mean()), abs=1e-6)
    assert new.metrics["cosine_parent"] == pytest.approx(float((texts["new"] * texts["cut"]).sum(1).mean()), abs=1e-6)
    assert new.metrics["mse"] == pytest.approx(float(((texts["new"] - texts["teacher"]) ** 2).mean()), rel=1e-5)
    upper = np.triu_indices(len(texts["new"]), 1)
    own, taught = ((each @ each.T)[upper] for each in (texts["new"].astype(float), texts["teacher"].astype(float)))
    ranks: Any = spearmanr(own, taught)
    assert new.metrics["similarity"] == pytest.approx(float(ranks.statistic), abs=2e-3)
    assert root.metrics["cosine"] == pytest.approx(1) == root.metrics["similarity"]
    pairs = embed(load_model(Path(new.folder), "embedding"), pair_batches(corpus, 5), CPU, "fp32")
    scored: Any = spearmanr((pairs[0::2] * pairs[1::2]).sum(1).round(5), corpus.pair_scores)  # equal texts are alike to the last bit or two
    assert new.metrics["spearman"] == pytest.approx(float(scored.statistic), abs=2e-3)
    assert new.metrics["pairs"] == 29
    assert new.metrics["root_spearman"] == root.metrics["spearman"]


def test_a_share_of_the_teachers_ranks_or_likeness_to_it_where_it_has_none() -> None:
    figures = {"spearman": 0.4, "root_spearman": 0.5, "parent_spearman": -0.1, "similarity": 0.9, "similarity_parent": 0.7}
    assert retention("embedding", figures, "root") == pytest.approx(0.8)
    assert retention("embedding", figures, "parent") == 0.7, "a teacher without a rank of its own has no share to keep"
    assert retention("embedding", {"similarity": 0.9}, "root") == 0.9


def test_a_student_learns_and_its_first_figures_are_kept(made: tuple[StageInputs, list[StageRecord]]) -> None:
    _, (_, cut, new) = made
    assert cut.initial["distance"] > 1 - cut.metrics["cosine_parent"]
    assert set(new.initial) == {"similarity", "cosine", "mse", "distance", "spearman"}
    assert cut.signals == "live"


@pytest.mark.filterwarnings("ignore")  # the libraries', of their own annotations
def test_published_folders_give_the_same_embeddings_elsewhere(made: tuple[StageInputs, list[StageRecord]], tmp_path: Path) -> None:
    _, lineage = made
    library = pytest.importorskip("sentence_transformers")
    for record in lineage:
        folder = Path(record.folder)
        theirs = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS[:5])
        model: Any = load_model(folder, "embedding").eval()
        batch = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[:5], padding=True, return_tensors="pt")
        with torch.no_grad():
            own = model(batch["input_ids"], batch["attention_mask"]).logits.numpy()
        assert np.allclose(theirs, own, atol=1e-5, rtol=0)
        target, parts = tmp_path / record.name, tmp_path / f"{record.name}-parts"
        target.mkdir()
        parts.mkdir()
        write_package(folder, parts, About("embedding", "run", "m-1", str(target), None, {}), target)
        for path in folder.iterdir():
            if path.is_file():
                shutil.copy(path, target)
        loaded: Any = mlflow.pyfunc.load_model(str(target))
        assert np.allclose(np.array(loaded.predict(TEXTS[:5])), own, atol=1e-5, rtol=0)
        assert loaded.predict(loaded.input_example)


def test_a_teacher_with_one_answer_is_poor(tmp_path: Path) -> None:
    figures = {"similarity": 0.0, "cosine": 1.0, "baseline_cosine": 1.0}
    assert learned_nothing(figures) is not None
    assert learned_nothing({**figures, "similarity": 1.0, "baseline_cosine": 0.4}) is None
    assert learned_nothing({"similarity": 0.6, "cosine": -0.1, "baseline_cosine": 0.3}) is None, "similarities alone may be learned"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "b", 1), ("c", "d", "much")], r"data\.pairs\.score: got .pairs\.csv:3 with 'much'.; allowed: a finite number"),
        ([("a", "b", 1), ("c", "", 2)], r"data\.pairs\.second: got .pairs\.csv:3 with ''.*a text in every row"),
        ([("a", "b", 1), ("c", "d", 1), ("e", "f", 1)], r"data\.pairs: got '3 pairs with 1 different scores"),
    ],
)
def test_pairs_that_cannot_judge(rows: list[tuple[str, str, Any]], words: str, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.csv", rows)
    with pytest.raises(UserError, match=words):
        read_pairs(ladder_of().data, tmp_path)


def test_pairs_without_a_column(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("sentence1,second,score\na,b,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.pairs\.second: got 'sentence2'"):
        read_pairs(ladder_of().data, tmp_path)


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["stages"][0].update(objective={"kind": "forward-kl"}), "got 'forward-kl'; allowed: cosine, mse, similarity-kl"),
        (lambda p: p["stages"][0].update(teachers=["none"]), r"stages\[0\]\.teachers: got \('none',\)"),
        (lambda p: p["stages"][0].update(objective={"alpha": 0.5}), r"objective\.alpha: got 0\.5; allowed: 1, as there are no labels"),
        (lambda p: p["stages"][0].update(members=2), "members: got 2; allowed: 1 for workload embedding"),
        (lambda p: p["stages"][1]["training"].update(accumulation=2), "similarity-kl, which compares each row with all others"),
        (lambda p: p["stages"][0].update(signals={"source": "cached", "kind": "full"}), "signals"),
        (lambda p: p["stages"][0].update(gate={"max_ece": 0.1}), "needs an audit of answers; allowed: none, for "),
        (lambda p: p["data"].update(max_labels=3), "data.max_labels: got 3; allowed: none"),
        (lambda p: p["teacher"].update(training={"steps": 3}), "teacher.training: got some; allowed: none"),
        (lambda p: p.update(route="ensemble"), "route: got 'ensemble'; allowed: as-written, direct or self"),
        (lambda p: p.update(workload="sequence-classification"), "data.pairs: got some; allowed: none, for workload sequence-classif"),
    ],
)
def test_settings_that_embeddings_do_not_have(change: Change, words: str) -> None:
    plain = ladder_of().model_dump(mode="json")
    for stage in plain["stages"]:
        stage["objective"] = {key: stage["objective"][key] for key in ("kind", "temperature")}
    change(plain)
    with pytest.raises(ValueError, match=words):
        Ladder.model_validate(plain)


def test_the_usual_objective_is_cosine() -> None:
    assert [stage.objective.kind for stage in ladder_of().stages] == ["cosine", "similarity-kl"]


def test_a_search_moves_what_embeddings_have() -> None:
    ladder = ladder_of()
    assert set(default_space(ladder, ladder.stages)) == {"training.learning_rate", "training.weight_decay"}
    assert "objective.temperature" in default_space(ladder, ladder.stages[1:])
    assert plan_search(ladder).metric == "similarity"


def test_a_report_says_what_its_figures_are(made: tuple[StageInputs, list[StageRecord]]) -> None:
    _, (root, *students) = made
    record = run_record("r", root, *students, workload="embedding")
    found = {name: find(record) or {} for name, find in (("curves", curves.section), ("quality", quality.section))}
    assert found["curves"]["unit"] == "distance from the teacher"
    assert [line["before"] for line in found["curves"]["starts"]] == [f"{student.initial['distance']:.3f}" for student in students]
    assert found["quality"]["tables"][0]["headers"][1:] == [*quality.FIGURES["similarity"].values()]
    assert (outcome.section(record) or {"prove": "left out"})["prove"] is None, "no proof compares embeddings"
    assert any(cell == "mean embedding" for row in tables.rows(record)[1] for cell in row)
