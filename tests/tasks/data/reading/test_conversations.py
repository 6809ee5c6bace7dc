"""Corpora of conversations and of prompts with completions, from tables to what a student carries."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from conf.errors import UserError
from conf.loading.path_policy import confine
from models.architectures.checkpoint import save_model
from models.architectures.shapes import build as build_model
from models.architectures.shapes import config_for
from models.data import tokenizers
from models.data.batches import TrainingBatches
from models.data.corpus import SPLITS, Corpus
from tasks.data.build import build_corpus
from tasks.data.identity import corpus_identity
from tasks.data.reading.conversations import template_of
from tests.models.data.test_chat import CHATML, chat_tokenizer
from tests.tasks.data.builders import build, ladder

TEMPLATE = (
    "{% for m in messages %}{{ m.role + '> ' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant> ' }}{% endif %}"
)


def talks(path: Path, count: int = 20) -> dict[str, Any]:
    rows = [
        {"chat": [{"role": "user", "content": f"{n} and {n}?"}, {"role": "assistant", "content": str(2 * n)}], "kind": "ab"[n % 2]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"messages": "chat", "slice": "kind"}
    return {"source": "files", "paths": [path.name], "columns": columns, "sequence_length": 64, "valid_fraction": 0.2, "test_fraction": 0.2}


def answers(corpus: Any, name: Any) -> list[str]:
    split, tokenizer = corpus.split(name), tokenizers.load(corpus.tokenizer_folder)
    ids = [split.values[a:b][split.counted[a:b] > 0].tolist() for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]
    return [str(tokenizer.decode(each, skip_special_tokens=True)) for each in ids]


def tokenizer_of(corpus: Corpus) -> PreTrainedTokenizerBase:
    assert corpus.tokenizer_folder is not None
    return tokenizers.load(corpus.tokenizer_folder)


def test_a_corpus_of_messages_and_what_its_student_carries(tmp_path: Path) -> None:
    data = talks(tmp_path / "t.jsonl")
    made = ladder("causal-lm", data, {"kind": "bytes", "chat_template": TEMPLATE})
    corpus, info, _ = build(made, tmp_path)
    assert info.completions
    assert info.slice_names == ("a", "b")
    found = [answer for name in SPLITS for answer in answers(corpus, name)]
    assert sorted(found) == sorted(str(2 * n) for n in range(20))
    assert corpus.split("train").sizes.tolist() == [len(answer) for answer in answers(corpus, "train")]
    assert TrainingBatches(corpus, 4, 0).examples == info.documents["train"]
    shape = made.stages[0].student.shape
    assert shape is not None
    model = build_model(config_for(shape, corpus.interface), "causal-lm")
    (tmp_path / "student").mkdir()
    save_model(model, tmp_path / "student", corpus.tokenizer_folder)
    published = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert published.apply_chat_template([{"role": "user", "content": "1?"}], tokenize=False, add_generation_prompt=True) == (
        "user> 1?<|end|>assistant> "
    )


def test_messages_of_csv_are_json(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["chat", "kind"])
        for n in range(9):
            table.writerow([json.dumps([{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"no {n}"}]), "a"])
    data = talks(tmp_path / "t.jsonl") | {"paths": ["t.csv"]}
    corpus, _, _ = build(ladder("causal-lm", data, {"kind": "bytes", "chat_template": TEMPLATE}), tmp_path)
    assert sorted(answer for name in SPLITS for answer in answers(corpus, name)) == [f"no {n}" for n in range(9)]


@pytest.mark.parametrize("kind", [{"kind": "bytes"}, {"kind": "bpe", "vocabulary": 280}])
def test_prompt_and_completion_without_template(tmp_path: Path, kind: dict[str, Any]) -> None:
    rows = [{"q": f"{n} plus {n} is ", "a": f"{2 * n}, of course"} for n in range(12)]
    rows[3]["q"] = rows[3]["q"] * 20
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": "files", "paths": ["p.jsonl"], "columns": {"prompt": "q", "completion": "a"}, "sequence_length": 40}
    corpus, info, told = build(ladder("causal-lm", data, kind), tmp_path)
    assert sorted(answer for name in SPLITS for answer in answers(corpus, name)) == sorted(row["a"] for row in rows)
    assert max(info.tokens.values()) == len(corpus.split("train").values)
    assert any("conversations are longer than data.sequence_length and cut, from the left of the prompt" in line for line in told)
    assert tokenizer_of(corpus).chat_template is None


def test_a_teachers_own_template_is_used(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    tokenizers.save(chat_tokenizer(), tmp_path / "teacher")
    made = ladder("causal-lm", talks(tmp_path / "t.jsonl"), {"kind": "teacher"})
    corpus, _, _ = build(made, tmp_path, tmp_path / "teacher")
    assert tokenizer_of(corpus).chat_template == CHATML
    assert sorted(answer for name in SPLITS for answer in answers(corpus, name))[0] == "0\n"
    assert template_of(made, tmp_path, tmp_path / "teacher") == CHATML


def test_the_identity_follows_the_template_and_not_its_place(tmp_path: Path) -> None:
    data = talks(tmp_path / "t.jsonl")
    (tmp_path / "one.jinja").write_text(TEMPLATE)
    (tmp_path / "two.jinja").write_text(TEMPLATE)

    def identity(template: str | None) -> dict[str, Any]:
        made = ladder("causal-lm", data, {"kind": "bytes"} | ({} if template is None else {"chat_template": template}))
        return corpus_identity(made, tmp_path, None, chat_template=template_of(made, tmp_path, None))

    assert identity("one.jinja") == identity("two.jinja") == identity(TEMPLATE) != identity(TEMPLATE + " ")
    plain = identity(None)
    assert plain["tokenizer"] == {"kind": "bytes"}
    text = corpus_identity(ladder("causal-lm", {"source": "files", "paths": ["t.jsonl"]}), tmp_path, None)
    assert text["data"]["columns"] == {"text": "text", "label": "label", "slice": None, "image": "image"}
    with pytest.raises(UserError, match=r"tokenizer\.chat_template: got 'three\.jinja'; allowed: the text of a chat template, the path"):
        identity("three.jinja")
    with pytest.raises(UserError, match=r"tokenizer\.chat_template: got '/etc/passwd'; allowed: a path inside the allowed folders"):
        confine("x.yaml", ladder("causal-lm", data, {"kind": "bytes", "chat_template": "/etc/passwd"}), tmp_path, [tmp_path])


@pytest.mark.parametrize(
    ("chat", "says"),
    [
        ("no json", r"r\.jsonl:1 holds 'no json'"),
        ([], r"r\.jsonl:1 holds \[\]"),
        ([{"role": "user"}], r"holds \{'role': 'user'\}"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], r"each a \{role, content\} of text"),
        ([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}], r"No message of r\.jsonl:1 is an answer"),
        ([{"role": "user", "content": "a"}], r"No message of r\.jsonl:1 is an answer, of role assistant"),
    ],
)
def test_rows_that_hold_no_conversation_are_refused(tmp_path: Path, chat: Any, says: str) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps({"chat": chat}))
    data = {"source": "files", "paths": ["r.jsonl"], "columns": {"messages": "chat"}}
    with pytest.raises(UserError, match=says):
        build(ladder("causal-lm", data, {"kind": "bytes", "chat_template": TEMPLATE}), tmp_path)


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    data = talks(tmp_path / "t.jsonl")
    for columns in ({"prompt": "q"}, {"messages": "m", "prompt": "q", "completion": "a"}):
        with pytest.raises(ValueError, match="allowed: messages, or prompt and completion"):
            ladder("causal-lm", data | {"columns": columns})
    with pytest.raises(ValueError, match=r"data\.columns: got conversations; allowed: text and label, for workload sequence-class"):
        ladder("sequence-classification", data)
    with pytest.raises(UserError, match=r"tokenizer\.chat_template: got None; allowed: a chat template, which messages need"):
        build(ladder("causal-lm", data), tmp_path)
    (tmp_path / "a.txt").write_text("text")
    made = ladder("causal-lm", data | {"paths": ["a.txt"]}, {"kind": "bytes", "chat_template": TEMPLATE})
    with pytest.raises(UserError, match=r"data\.paths: got 'a\.txt'; allowed: tables, whose rows hold conversations"):
        build_corpus(made, tmp_path, None, tmp_path, print)


def test_parts_of_text_are_one_text_and_a_greeting_is_no_answer(tmp_path: Path) -> None:
    data, parts = talks(tmp_path / "t.jsonl"), [{"type": "text", "text": "one "}, {"type": "text", "text": "and two?"}]
    turns = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": parts}, {"role": "assistant", "content": "three"}]
    lines = (tmp_path / "t.jsonl").read_text()
    more = (json.dumps({"chat": [*turns[:2], {**turns[2], "content": f"three {n}"}], "kind": "c"}) + "\n" for n in range(20))
    (tmp_path / "t.jsonl").write_text(lines + "".join(more))
    made = ladder("causal-lm", data, {"kind": "bytes", "chat_template": TEMPLATE})
    corpus, _, _ = build(made, tmp_path)
    told = [answers(corpus, name) for name in SPLITS]
    assert any("three" in each for each in told[0])
    assert not any("Hello" in each for part in told for each in part)
