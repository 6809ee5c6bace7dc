"""A column of rationales: a second task of training rows alone, which moves no row and changes no answer."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from conf.schema.data import has_rationales
from conf.schema.ladder import Ladder
from models.data import tokenizers
from models.data.corpus import SPLITS, Corpus, Split
from tasks.data.identity import corpus_identity
from tasks.records.data import COUNTS, DataCounts
from tests.models.data.test_chat import CHATML
from tests.tasks.data.builders import build, ladder

FIELDS = ("values", "offsets", "sizes", "counted", "slices")
ROWS: list[dict[str, Any]] = [
    {"q": f"{n} + {n} + 1?", "a": str(2 * n + 1), "why": f"{n} + {n} = {2 * n}; one more" if n % 4 else (None, "", " ")[n % 3]}
    for n in range(40)
]


def data_of(folder: Path, rows: list[dict[str, Any]], explained: bool = True, length: int = 64, **columns: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {"prompt": "q", "completion": "a", **({"rationale": "why"} if explained else {}), **columns}
    fractions = {"valid_fraction": 0.2, "test_fraction": 0.2}
    return {"source": "files", "paths": ["rows.jsonl"], "columns": named, "sequence_length": length, **fractions}


def texts_of(corpus: Corpus, split: Split, counted: bool) -> list[str]:
    """Each document as text, whole or the part that is learned."""
    assert corpus.tokenizer_folder is not None
    assert split.counted is not None
    tokenizer, texts = tokenizers.load(corpus.tokenizer_folder), list[str]()
    for begin, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        ids, kept = split.values[begin:end], split.counted[begin:end] > 0
        texts.append(str(tokenizer.decode((ids[kept] if counted else ids).tolist(), skip_special_tokens=True)))
    return texts


def test_rationales_are_a_second_task_beside_the_same_corpus(tmp_path: Path) -> None:
    corpora = []
    for name, explained in (("with", True), ("without", False)):
        corpora.append(build(ladder("causal-lm", data_of(tmp_path / name, ROWS, explained)), tmp_path / name))
    (corpus, info, told), (plain, plain_info, _) = corpora
    for name in SPLITS:
        one, other = corpus.split(name), plain.split(name)
        assert all(np.array_equal(getattr(one, field), getattr(other, field)) for field in FIELDS), "splits and answers stay"
    assert (info.tokens, info.documents) == (plain_info.tokens, plain_info.documents)
    assert plain.rationales is None
    assert "rationales" not in json.loads((plain.folder / "corpus.json").read_text())

    rationales = corpus.rationales
    assert rationales is not None
    answers, learned = texts_of(corpus, corpus.split("train"), counted=False), texts_of(corpus, rationales, counted=True)
    given = {f"{row['q']}{row['a']}": (row["q"], row["why"]) for row in ROWS}
    assert len(answers) == len(learned) == info.documents["train"] < len(ROWS)
    for answer, whole, text in zip(answers, texts_of(corpus, rationales, counted=False), learned, strict=True):
        prompt, why = given[answer]
        explained = bool(why and why.strip())
        assert text == (why if explained else "")
        assert whole == (f"{prompt}\nReasoning:\n{why}" if explained else "")
    assert info.rationales == sum(map(bool, learned))
    words = f"{info.rationales} of {len(learned)} training rows have a rationale, a second task; the others teach their answer alone"
    assert words in told
    assert words in DataCounts.model_validate_json((corpus.folder / COUNTS).read_bytes()).notes


def test_the_prompt_of_the_second_task_is_a_setting_and_passes_a_chat_template(tmp_path: Path) -> None:
    data = data_of(tmp_path / "d", ROWS, length=120, rationale_prompt="Explain: {prompt}")
    corpus, _, _ = build(ladder("causal-lm", data, {"kind": "bytes", "chat_template": CHATML}), tmp_path / "d")
    assert corpus.rationales is not None
    (first, *_) = [text for text in texts_of(corpus, corpus.rationales, counted=False) if text]
    assert first.startswith("<|im_start|>user\nExplain: ")
    assert "<|im_start|>assistant\n" in first


def test_rationales_cut_at_the_window_are_counted(tmp_path: Path) -> None:
    rows = [row | {"why": "because " * (20 if n % 2 else 1)} for n, row in enumerate(ROWS)]
    corpus, info, told = build(ladder("causal-lm", data_of(tmp_path / "d", rows)), tmp_path / "d")
    assert corpus.rationales is not None
    assert np.diff(corpus.rationales.offsets).max() == 65
    long = sum(text.count("because") > 1 for text in texts_of(corpus, corpus.rationales, counted=True))
    assert f"{long} of {info.rationales} rationales are, with their prompt, longer than data.sequence_length and cut" in told


def test_a_trained_tokenizer_reads_rationales(tmp_path: Path) -> None:
    rows = [row | {"why": "therefore " * 3} for row in ROWS]
    corpus, _, _ = build(ladder("causal-lm", data_of(tmp_path / "d", rows), {"kind": "bpe", "vocabulary": 300}), tmp_path / "d")
    assert corpus.tokenizer_folder is not None
    assert len(tokenizers.load(corpus.tokenizer_folder)("therefore")["input_ids"]) < len("therefore")


def test_sources_and_further_rows_may_lack_rationales(tmp_path: Path) -> None:
    """Of weighted sources one alone has the column; a table of `data.transfer` has it empty."""
    data = data_of(tmp_path / "d", [], explained=False)
    for name, first in (("one", 0), ("two", 100)):
        rows = [{"q": f"{n}?", "a": str(n), "why": f"since {n}"} for n in range(first, first + 20)]
        (tmp_path / "d" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "d" / "more.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["q", "a", "why"], *([f"{n}?", str(n), ""] for n in range(200, 205))])
    explained = {"prompt": "q", "completion": "a", "rationale": "why"}
    sources = [
        {"name": "one", "paths": ["one.jsonl"], "columns": explained, "weight": 2},
        {"name": "two", "paths": ["two.jsonl"], "columns": explained | {"rationale": None}},
    ]
    transfer = [{"paths": ["more.csv"], "columns": explained}]
    made = ladder("causal-lm", {**data, "paths": [], "sources": sources, "transfer": transfer})
    assert has_rationales(made.data)
    corpus, info, _ = build(made, tmp_path / "d")
    assert corpus.rationales is not None
    pairs = list(zip(texts_of(corpus, corpus.split("train"), True), texts_of(corpus, corpus.rationales, True), strict=True))
    assert all(why == (f"since {answer}" if int(answer) < 100 else "") for answer, why in pairs)
    assert sum(bool(why) for _, why in pairs) == info.rationales == 2 * len({answer for answer, why in pairs if why})


def test_the_column_is_part_of_the_identity_where_it_is_named(tmp_path: Path) -> None:
    made = [ladder("causal-lm", data_of(tmp_path / "d", ROWS, explained)) for explained in (False, True)]
    plain, explained = (corpus_identity(each, tmp_path / "d", None) for each in made)
    assert "rationale" not in json.dumps(plain), "data prepared before stay valid"
    assert explained["data"]["columns"]["rationale"] == "why"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row | {"why": "  "} for row in ROWS], r"data\.columns\.rationale: got 'why'.*Every cell is empty"),
        ([row | {"why": 3} for row in ROWS], r"data\.columns\.rationale: got 'why'; allowed: a column of text"),
        ([{"q": row["q"], "a": row["a"], "whi": "x"} for row in ROWS], r"data\.columns\.rationale: got 'why'.*whi"),
    ],
)
def test_columns_without_rationales_are_refused(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build(ladder("causal-lm", data_of(tmp_path / "d", rows)), tmp_path / "d")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"rationale": "why"}, "rationale: got 'why'; allowed: with prompt and completion"),
        ({"rationale": "why", "messages": "chat"}, "rationale: got 'why'; allowed: with prompt and completion"),
        ({"prompt": "q", "completion": "a", "rationale_prompt": "Why?"}, "rationale_prompt: got 'Why\\?'; allowed: {prompt} once"),
        ({"prompt": "q", "completion": "a", "rationale_prompt": " {prompt} "}, "with words that tell the task"),
        ({"prompt": "q", "completion": "a", "rationale_prompt": "{prompt} or {prompt}"}, "allowed: {prompt} once"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ladder("causal-lm", {"source": "files", "paths": ["x.jsonl"], "columns": columns})


def test_a_weight_needs_the_column(tmp_path: Path) -> None:
    plain = ladder("causal-lm", data_of(tmp_path / "d", ROWS, explained=False)).model_dump(mode="json")
    stage = {**plain["stages"][0], "objective": {"rationale": 0.5}}
    changes = {r"stages\[0\]\.objective": {"stages": [stage]}, "teacher": {"teacher": plain["teacher"] | {"rationale": 2}}}
    for key, change in changes.items():
        with pytest.raises(ValueError, match=rf"{key}\.rationale: got .*; allowed: with data\.columns\.rationale"):
            Ladder.model_validate(plain | change)
    named = data_of(tmp_path / "d", ROWS)
    assert Ladder.model_validate(plain | {"data": named, "stages": [stage]}).stages[0].objective.rationale == 0.5
