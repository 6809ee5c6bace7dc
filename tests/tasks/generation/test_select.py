"""Every rule drops what it names, and counts it."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_test
from hypothesis import strategies as st

from conf.errors import UserError
from conf.schema.generate import Generate
from models.generation.writers import WrittenAnswer
from tasks.generation.prompts import Prompt
from tasks.generation.rules import NearDuplicates, answer_in, function_of, majority, repeated
from tasks.generation.select import Selected, select

WORDS = [f"word{number}" for number in range(500)]


def settings(**changes: Any) -> Generate:
    rules = {"duplicates": None} | changes.pop("selection", {})
    return Generate.model_validate({"prompts": {"paths": ["p"], "reference": "answer"}, "selection": rules, **changes})


def chosen(*answers: str | WrittenAnswer, samples: int = 1, references: Sequence[str] = (), **changes: Any) -> Selected:
    """What is left of answers to as many prompts, or of `samples` answers to each."""
    made = [answer if isinstance(answer, WrittenAnswer) else WrittenAnswer(answer, "stop") for answer in answers]
    groups = [made[first : first + samples] for first in range(0, len(made), samples)]
    prompts = [Prompt(f"prompt {n}", (str(n),), references[n] if references else None) for n in range(len(groups))]
    return select(settings(samples=samples, **changes), prompts, groups)


def prose(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).sample(WORDS, words))


def test_rules_of_single_answers() -> None:
    loop = "so it goes on and on, " * 9
    made = chosen(
        "good",
        "",
        "  \n",
        WrittenAnswer("", "refused"),
        WrittenAnswer("half an ans", "length"),
        loop,
        "x",
        "a long answer",
        selection={"min_length": 2, "max_length": 12},
    )
    assert [row.text for row in made.rows] == ["good"]
    assert made.counts == {"empty": 2, "refused": 1, "unfinished": 1, "repeating": 1, "short": 1, "long": 1}
    assert {(sample.rule, sample.text) for sample in made.samples()} >= {(None, "good"), ("short", "x"), ("unfinished", "half an ans")}
    assert len(chosen(WrittenAnswer("half an ans", "length"), selection={"unfinished": "keep"}).rows) == 1


@pytest.mark.parametrize("text", ["the same " * 30, "abcdefgh" * 20, "a" * 60])
def test_loops_are_found(text: str) -> None:
    assert repeated(text) > 0.5


@settings_of_test(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_prose_is_no_loop(seed: int) -> None:
    assert repeated(prose(seed)) == 0
    assert repeated(prose(seed, 10)) < 0.2
    assert repeated("") == 0


def test_a_teacher_that_repeats_itself_is_refused_with_its_figures() -> None:
    loops = ["no no no no no no no no no no no no no no no"] * 6
    with pytest.raises(UserError, match=r"6 of 8 answers \(75\.0 %\) that repeat themselves") as caught:
        chosen("one thing", "another", *loops)
    assert "no no no" in str(caught.value)
    assert chosen("one thing", "another", *loops, max_repeating=0.8).counts == {"repeating": 6}
    assert chosen("one thing", *loops[:5]).counts == {"repeating": 5}  # too few answers to judge a teacher by


def test_nothing_left_is_an_error_that_counts() -> None:
    with pytest.raises(UserError, match=r"1 empty, 1 unfinished.*max_tokens"):
        chosen("", WrittenAnswer("cut o", "length"))


def test_the_right_answer() -> None:
    made = chosen(
        "I add: it is 1,000.", "It is 12.", "No idea", references=["1000", "13", "5"], selection={"reference": True, "answer": r"-?[\d,]+"}
    )
    assert [row.text for row in made.rows] == ["I add: it is 1,000."]
    assert made.counts == {"wrong": 2}


@pytest.mark.parametrize(
    ("text", "pattern", "answer"),
    [
        (" The  Answer.", None, "the answer"),
        ("first 3 then 4", r"\d", "4"),
        ("#### 12 apples", r"#### (\d+)", "12"),
        ("a=1 b=2", r"(a)=1|(b)=2", "b"),
        ("nothing", r"\d", ""),
        ("1,000.50", None, "1000.5"),
    ],
)
def test_the_answer_in_a_text(text: str, pattern: str | None, answer: str) -> None:
    assert answer_in(text, pattern) == answer


def test_agreement_keeps_one_sample_of_the_largest_group() -> None:
    made = chosen("it is 4", "4", "5", "7", "8", "9", samples=3, selection={"agreement": 0.6, "answer": r"\d"})
    assert [row.text for row in made.rows] == ["it is 4"]
    assert made.counts == {"spare": 1, "outvoted": 1, "disagreeing": 3}


def test_samples_that_are_dropped_before_count_as_disagreeing() -> None:
    made = chosen("4", "", "", "5", "5", "5", samples=3, selection={"agreement": 0.6})
    assert [row.text for row in made.rows] == ["5"]
    assert made.counts == {"empty": 2, "disagreeing": 1, "spare": 2}


def test_majority() -> None:
    assert majority(["b", "a", "a", ""]) == ("a", 0.5)
    assert majority(["b", "a"]) == ("b", 0.5)
    assert majority(["", ""]) == ("", 0.0)


def test_equal_and_near_duplicates() -> None:
    text = prose(1)
    other = text.replace("word", "Word", 3)
    near = f"{text} and one more"
    made = chosen(text, "short", f" {other}", near, prose(2), samples=5, selection={"duplicates": 0.7})
    assert [row.text for row in made.rows] == [text, "short", prose(2)]
    assert made.counts == {"equal": 1, "near duplicate": 1}
    assert len(chosen(text, near, samples=2).rows) == 2


@settings_of_test(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_near_duplicates_by_similarity(seed: int) -> None:
    """Of 100 words one in the middle is exchanged: 95 of 101 runs are shared; of every second word none is."""
    found, words = NearDuplicates(0.7), random.Random(seed).sample(WORDS, 100)
    assert not found.is_like_another(" ".join(words))
    assert found.is_like_another(" ".join([*words[:50], "other", *words[51:]]))
    assert not found.is_like_another(" ".join(word if place % 2 else f"x{word}" for place, word in enumerate(words)))


class TestFunction:
    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        (tmp_path / "my_filters.py").write_text(
            "LADDER_FILTERS = ('keep', 'fail')\n"
            "def keep(prompt, completion): return 'yes' in completion\n"
            "def fail(prompt, completion): raise KeyError('oh')\n"
            "def hidden(prompt, completion): return True\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("my_filters", None)

    def test_a_users_function(self, module: None) -> None:
        keep, source = function_of("my_filters:keep")
        assert source is not None
        prompts, answers = [Prompt("a", ()), Prompt("b", ())], [[WrittenAnswer("yes", "stop")], [WrittenAnswer("no", "stop")]]
        made = select(settings(), prompts, answers, keep)
        assert ([row.text for row in made.rows], made.counts) == (["yes"], {"function": 1})
        fail, _ = function_of("my_filters:fail")
        with pytest.raises(UserError, match="KeyError"):
            select(settings(), prompts, answers, fail)

    @pytest.mark.parametrize("name", ["my_filters:hidden", "my_filters:nothing", "no_such_module:keep", "os:system"])
    def test_a_function_that_no_module_offers_is_not_called(self, module: None, name: str) -> None:
        with pytest.raises(UserError, match=r"selection\.function"):
            function_of(name)


def test_perplexity_bounds() -> None:
    rules = settings(selection={"perplexity": {"model": "somewhere", "least": 2, "most": 9}})
    prompts = [Prompt(letter, ()) for letter in "abcd"]
    answers = [[WrittenAnswer(letter, "stop")] for letter in "abcd"]
    made = select(rules, prompts, answers, None, lambda pairs: [1.5, 2.0, 9.5, float("nan")])
    assert [row.text for row in made.rows] == ["b"]
    assert made.counts == {"too easy": 1, "too strange": 2}


def test_perplexity_is_of_what_a_student_learns() -> None:
    rules = settings(selection={"perplexity": {"model": "somewhere", "most": 9}, "unfinished": "keep"}, rationale_before="So: ")
    prompts = [Prompt("think, then say what 1 + 1 is", (), learned="1 + 1 ="), Prompt("and 2 + 2?", ())]
    answers = [[WrittenAnswer("one more than one. So: two", "stop")], [WrittenAnswer("a pair of pairs. So: fo", "length")]]
    seen: list[Any] = []

    def judge(pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        seen.extend(pairs)
        return [1.0] * len(pairs)

    assert len(select(rules, prompts, answers, None, judge).rows) == 2
    assert seen == [("1 + 1 =", "two"), ("and 2 + 2?", "fo")]
