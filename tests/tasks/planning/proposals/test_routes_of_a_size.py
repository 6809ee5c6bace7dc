"""Routes to a size: the reference figures, the rule, the file, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, LlamaConfig, LlamaForCausalLM

import tasks.planning.plan as planning
import tasks.planning.proposals.propose as proposing
from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from flows.cli.commands.make import plan
from flows.cli.show.proposal import proposal_text
from models.architectures.shapes import Size
from models.base.interface import Interface
from models.data import tokenizers
from tasks.data.prepare import prepare_data
from tasks.planning.costs.estimates import cache_bytes
from tasks.planning.costs.throughput import Throughput
from tasks.planning.matching import lasting
from tasks.planning.plan import make_plan
from tasks.planning.proposals.begin import COMMAND, propose_for_ladder, propose_for_teacher, write_ladder
from tasks.planning.proposals.candidates import Candidate, Impossible, candidates
from tasks.planning.proposals.costs import flops_of_route
from tasks.planning.proposals.propose import Proposed
from tasks.planning.proposals.rule import pick
from tasks.planning.proposals.rungs import StudentRung, Students
from tasks.planning.proposals.wanted import Wanted, parse_allowance, rungs_between, wanted
from tasks.records.format import byte_size
from tasks.runtime.runs.run_registry import PLAN, Context
from tasks.setup.init import write_draft
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import TrainingExamples

SPEED = Throughput({}, 1e9, "a speed of the test")
ROOT, SIZES, LENGTH, IDS = 10**9, (300_000_000, 100_000_000, 30_000_000), 2048, 32_000
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "room", "was", "warm", "cold")


def size(parameters: int) -> Size:
    """A model whose forward pass takes two operations a parameter and token."""
    return Size(parameters, parameters, 2.0 * parameters * LENGTH, LENGTH, width=1024, layers=8)


def reference(ship: str, batches: tuple[int, ...] | None = None) -> tuple[Ladder, dict[str, Candidate | Impossible]]:
    """Routes of 1B -> 300M -> 100M -> 30M: in the steps of the ladder `llama-1b`, or in steps of the same text on every rung."""
    ladder = load("llama-1b").ladder
    stages = ladder.stages if batches is None else [lasting(stage, steps) for stage, steps in zip(ladder.stages, batches, strict=True)]
    rungs = tuple(StudentRung(stage, size(parameters), parameters) for stage, parameters in zip(stages, SIZES, strict=True))
    found = candidates(ladder, Students(size(ROOT), rungs), wanted("30m", ship), None)
    return ladder, {candidate.route: candidate for candidate in found}


def flops(candidate: Candidate | Impossible) -> float:
    assert isinstance(candidate, Candidate)
    costs = flops_of_route(candidate.ladder, [Forward.of(each) for each in candidate.sizes], TrainingExamples(None))
    return sum(cost.total for cost in costs)


def test_operations_a_token_of_the_reference_ladder() -> None:
    # docs/explanation/planning.md; batches are 256, 128 and 64 windows, so that each rung reads the same 25,600.
    _, all_ship = reference("300m,100m,30m", batches=(100, 200, 400))
    _, one_ships = reference("", batches=(100, 200, 400))
    tokens = 25_600 * LENGTH
    assert flops(all_ship["chain"]) == 5.38e9 * tokens
    assert flops(all_ship["root-cached"]) == 4.58e9 * tokens
    assert flops(all_ship["root-live"]) == 8.58e9 * tokens
    assert flops(one_ships["direct-live"]) == 2.18e9 * tokens
    assert flops(one_ships["direct-cached"]) == (2e9 / 4 + 0.18e9) * tokens
    assert pytest.approx(0.15, abs=0.005) == 1 - 4.58 / 5.38


def test_totals_of_llama_1b_and_its_cache() -> None:
    ladder, routes = reference("300m,100m,30m")
    assert flops(routes["chain"]) == pytest.approx(2.54e19, rel=0.01)
    assert flops(routes["root-cached"]) == pytest.approx(2.41e19, rel=0.01)
    assert flops(routes["root-live"]) == pytest.approx(2.91e19, rel=0.01)
    cached = routes["root-cached"]
    assert isinstance(cached, Candidate)
    interface, examples = Interface("causal-lm", LENGTH, IDS, 0, 0, 0, None), TrainingExamples(None)
    assert cache_bytes(cached.ladder, [True] * 3, LENGTH, interface, examples) == pytest.approx(116e9, rel=0.01)
    assert {stage.signals.kind for stage in cached.ladder.stages} == {"sampled"}, "the smallest that the ladder's objective takes"
    assert ladder.stages[0].signals.source == "live"


def test_a_plan_whose_caches_do_not_fit_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(
        "llama-1b", ["teacher.path=teachers/absent", *(f"stages.{name}.signals.source=cached" for name in ("300m", "100m", "30m"))]
    )
    monkeypatch.setattr(planning, "free_bytes", lambda home: 2**30)
    notes = make_plan(loaded.ladder, tmp_path, Home(tmp_path / "home")).notes
    (found,) = [note for note in notes if note.startswith("the caches of signals take about")]
    assert "1 GiB are free: free some" in found


def test_without_cut_weights_a_student_that_does_not_ship_helps_no_other_one_that_the_root_teaches() -> None:
    _, routes = reference("300m,30m")
    names = {name: [s.name for s in route.ladder.stages] for name, route in routes.items() if isinstance(route, Candidate)}
    assert names == {"chain": ["300m", "100m", "30m"], "root-live": ["300m", "30m"], "root-cached": ["300m", "30m"]}


def test_sizes_between() -> None:
    assert rungs_between(1.0e9, (30_000_000,), 3.5) == list(SIZES)
    assert rungs_between(1.0e9, (300_000_000, 30_000_000), 3.5) == [300_000_000, 90_000_000, 30_000_000]
    assert rungs_between(100, (40,), 3.5) == [40]
    for root in (7e9, 1.2e9, 135e6, 5e4):
        line = [root, *rungs_between(root, (2_000,), 3.5)]
        assert all(1 < a / b <= 3.5 for a, b in pairwise(line))


class TestRule:
    def test_one_student_is_taught_by_the_root(self) -> None:
        once, often = pick({}, 1, 1.0), pick({}, 1, 3.0)
        assert once
        assert often
        assert (once.route, often.route) == ("direct-live", "direct-cached")
        assert "3 times" in often.reason
        short = pick({}, 1, 1.0, short=True)
        assert short
        assert (short.route, "more steps from stored answers" in short.reason) == ("direct-cached", True)
        assert "times" not in (pick({}, 1, 1.8, short=True) or short).reason

    def test_several_students_share_the_cache_of_the_root(self) -> None:
        found = pick({}, 2, 1.0)
        assert found
        assert (found.route, found.pilot) == ("root-cached", False)

    def test_without_room_for_a_cache_parents_teach_and_a_pilot_comes_first(self) -> None:
        found = pick({"root-cached": "its cache is too large"}, 2, 1.0)
        assert found
        assert (found.route, found.pilot) == ("assistant", True)
        assert "root-cached is out: its cache is too large" in found.reason
        chain = pick({"root-cached": "too large", "assistant": "none"}, 2, 1.0)
        assert chain
        assert chain.route == "chain"

    def test_nothing_is_left(self) -> None:
        assert pick(dict.fromkeys(("direct-live", "direct-cached", "chain", "assistant", "root-live", "root-cached"), "no"), 1, 1.0) is None


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The home in which the data of `digits` are prepared."""
    folder = tmp_path_factory.mktemp("digits")
    context = Context(run=PLAN, ladder="digits", home=str(folder / "home"), base=str(folder))
    prepare_data(load("digits").ladder, context)
    return context


def proposed(context: Context, **asked: str) -> Proposed:
    return propose_for_ladder(load("digits").ladder, wanted(**{"to": "7k", **asked}), context, SPEED)


def test_the_file_is_the_route_with_the_same_operations(digits: Context) -> None:
    made = proposed(digits, ship="40k,7k")
    assert made.proposal.taken == "root-cached"
    file = write_ladder(made, Path(digits.base), str(Path(digits.base) / "route.yaml"))
    loaded = load(str(file))
    assert loaded.ladder == made.ladder
    planned = make_plan(loaded.ladder, loaded.base, digits.paths)
    route = next(route for route in made.proposal.routes if route.route == "root-cached")
    assert sum(stage.flops for stage in planned.stages) == route.flops, "one cost model, duplicates among the digits counted once"
    with pytest.raises(UserError, match=r"--out: .* a file that does not exist yet"):
        write_ladder(made, Path(digits.base), str(file))


def test_a_budget_shortens_every_route_to_it(digits: Context) -> None:
    whole, shorter = proposed(digits), proposed(digits, budget="20m")
    seconds = {route.route: route.seconds for route in whole.proposal.routes if route.stages}
    assert seconds["chain"] > 1200 > seconds["direct-cached"]
    for route in shorter.proposal.routes:
        if route.stages:
            assert route.seconds <= min(1200, seconds[route.route])
            assert (route.share < 1) == (seconds[route.route] > 1200)
    chain = next(route for route in shorter.proposal.routes if route.route == "chain")
    assert chain.seconds == pytest.approx(1200, rel=0.02)
    priced = proposed(digits, budget="$0.30")  # at 1 USD an hour
    assert max(route.price for route in priced.proposal.routes) == pytest.approx(0.30, rel=0.02)


def test_a_cache_that_does_not_fit_the_disk(digits: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposing, "free_bytes", lambda home: 500)
    made = proposed(digits, ship="40k,7k")
    assert made.proposal.taken == "chain"
    cached = next(route for route in made.proposal.routes if route.route == "root-cached")
    assert cached.disk_bytes > 500
    assert f"root-cached is out: its cache takes {byte_size(cached.disk_bytes)}, and 500 B are free" in proposal_text(made.proposal, None)
    message = r"--take: got 'root-cached'; allowed: a route that can be taken: chain, root-live. Its cache takes"
    with pytest.raises(UserError, match=message):
        proposed(digits, ship="40k,7k", take="root-cached")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"to": "30q"}, "--to: got '30q'; allowed: numbers of parameters"),
        ({"to": ""}, "--to: got ''"),
        ({"to": "1b"}, "--to: got '1B'; allowed: fewer than the"),
        ({"to": "7k", "ship": "2m,7k"}, "--ship: got '2M'; allowed: fewer than the"),
        ({"to": "7k", "ship": "7k,20k"}, "--ship: got '7k,20k'; allowed: numbers of parameters such as 300m,30m, each smaller"),
        ({"to": "7k", "ship": "20k,5k"}, "--ship: got '20k,5k'; allowed: sizes of at least --to"),
        ({"to": "7k", "tokens": "none"}, "--tokens: got 'none'"),
        ({"to": "7k", "tokens": "0"}, "--tokens: got '0'"),
        ({"to": "7k", "budget": "cheap"}, "--budget: got 'cheap'; allowed: a time such as 8h"),
        ({"to": "7k", "budget": "$0"}, "--budget: got '$0'"),
        ({"to": "7k", "budget": "0h"}, "--budget: got '0h'"),
        ({"to": "7k", "budget": "1s"}, "--budget: got '1s'; allowed: enough for one route"),
        ({"to": "7k", "budget": "1m", "tokens": "10b"}, "--budget: got '1m'; allowed: enough for one route"),
        ({"to": "7k", "take": "magic"}, "--take: got 'magic'; allowed: one of direct-live"),
        ({"to": "7k", "take": "root-cached"}, "--take: got 'root-cached'; allowed: a route that can be taken: direct-live"),
    ],
)
def test_bad_requests(digits: Context, asked: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        proposed(digits, **asked)
    assert str(raised.value).startswith(message)


def test_budgets() -> None:
    assert parse_allowance("8h").seconds == 8 * 3600
    assert [parse_allowance(text).money for text in ("$50", "50 USD", "12.50$", "7eur")] == [50, 50, 12.5, 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with its texts, and a language model without any."""
    place = tmp_path_factory.mktemp("plan")
    torch.manual_seed(0)
    bert = BertConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=8, intermediate_size=256, vocab_size=9, id2label={0: "cold", 1: "warm"}
    )
    BertForSequenceClassification(bert).save_pretrained(place / "classifier")
    BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(place / "classifier")
    llama = LlamaConfig(hidden_size=128, num_hidden_layers=4, num_attention_heads=8, intermediate_size=512, vocab_size=258)
    LlamaForCausalLM(llama).save_pretrained(place / "llama")
    tokenizers.save(tokenizers.bytes_tokenizer(), place / "llama")
    rows = "".join(f"room {n} was {kind},{kind}\n" for n in range(200) for kind in ("warm", "cold"))
    (place / "rooms.csv").write_text("text,label\n" + rows)
    return place


def drafted(
    folder: Path, teacher: str, data: list[str], request: Wanted, out: Path, overrides: Sequence[str] = ()
) -> tuple[Proposed, Ladder]:
    context = Context(run=PLAN, ladder=PLAN, home=str(folder / "home"), base=str(folder))
    ask = lambda question: question.choices[0][0]  # noqa: E731
    made, draft = propose_for_teacher(teacher, data, request, str(out), ask, context, SPEED, overrides)
    write_draft(draft, out, context, COMMAND)
    return made, load(str(out)).ladder


def test_a_classifier_and_its_data(folder: Path, tmp_path: Path) -> None:
    made, ladder = drafted(folder, "classifier", ["rooms.csv"], wanted("20k", "80k,20k"), tmp_path / "rooms.yaml")
    assert made.proposal.taken == "root-cached"
    assert [stage.teachers for stage in ladder.stages] == [("root",)] * len(ladder.stages)
    assert {stage.signals.source for stage in ladder.stages} == {"cached"}
    assert {stage.signals.kind for stage in ladder.stages} == {"full"}
    planned = make_plan(ladder, tmp_path, Context(run=PLAN, ladder="rooms", home=str(folder / "home"), base=str(tmp_path)).paths)
    taken = next(route for route in made.proposal.routes if route.route == made.proposal.taken)
    assert [stage.parameters for stage in planned.stages] == [stage.parameters for stage in taken.stages]
    assert taken.disk_bytes == pytest.approx(360 * 4), "two probabilities of two bytes for each of 360 texts, whichever students learn them"


def test_a_language_model_whose_text_is_to_come(folder: Path, tmp_path: Path) -> None:
    made, ladder = drafted(folder, "llama", [], wanted("100k"), tmp_path / "lm.yaml")
    assert made.proposal.taken == "direct-live"
    assert made.ladder.stages == ladder.stages or len(ladder.stages) == 1
    (stage,) = made.ladder.stages
    read = stage.training.steps * stage.training.batch_size * ladder.data.sequence_length
    assert read == pytest.approx(20 * 100_000, rel=0.05), "20 tokens a parameter"
    assert "put the text that the students learn from at data/*.jsonl" in (tmp_path / "lm.yaml").read_text()


def test_a_classifier_without_data_and_a_larger_student(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data: got 'none'"):
        drafted(folder, "classifier", [], wanted("20k"), tmp_path / "a.yaml")
    with pytest.raises(UserError, match="--to: got '2M'; allowed: fewer than the"):
        drafted(folder, "classifier", ["rooms.csv"], wanted("2m"), tmp_path / "a.yaml")
    assert not (tmp_path / "a.yaml").exists()


def test_settings_of_a_draft(folder: Path, tmp_path: Path) -> None:
    asked = ["economics.price_per_hour=2.5", "economics.currency=EUR", "defaults.training.batch_size=16"]
    made, ladder = drafted(folder, "classifier", ["rooms.csv"], wanted("20k"), tmp_path / "priced.yaml", asked)
    taken = next(route for route in made.proposal.routes if route.route == made.proposal.taken)
    assert taken.price == pytest.approx(taken.seconds / 3600 * 2.5)
    assert (ladder.economics.price_per_hour, ladder.economics.currency) == (2.5, "EUR")
    assert {stage.training.batch_size for stage in ladder.stages} == {16}
    for wrong in ("economics", "stages.20k.training.steps=3", "data.paths.first=3", "economics.price_per_hour=[", "economics.price=1"):
        with pytest.raises(UserError):
            drafted(folder, "classifier", ["rooms.csv"], wanted("20k"), tmp_path / "wrong.yaml", [wrong])


@pytest.mark.parametrize(
    ("ladder", "options", "message"),
    [
        ("digits", {"ship": "3k"}, "--ship: got '3k'; allowed: with --to"),
        ("digits", {"data": ["a.csv"]}, "--data: got 'a.csv'; allowed: with --to"),
        (None, {"to": "3k"}, "LADDER: got 'none'; allowed: a ladder, or --teacher"),
        ("digits", {"to": "3k", "teacher": "big"}, "LADDER: got 'digits'"),
        ("digits", {"to": "3k", "data": ["a.csv"]}, "--data: got 'a.csv'; allowed: with --teacher"),
        ("digits", {"to": "3k", "fresh": True}, "--fresh: got True; allowed: without --to"),
        ("digits", {"to": "3k", "route": "direct"}, "--route: got 'direct'; allowed: without --to"),
    ],
)
def test_options_that_do_not_go_together(ladder: str | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        plan(ladder, **options)
    assert str(raised.value).startswith(message)
