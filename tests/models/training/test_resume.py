import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.architectures.shapes import build
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.sources import live
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, Trained, train
from tests.machine import fill, small_disk

pytestmark = pytest.mark.thorough

STEPS = 6
OBJECTIVE = Objective.model_validate({"alpha": {"kind": "cosine", "start": 0.9, "end": 0.5}, "temperature": 2.0})
Run = Callable[..., tuple[Trained, dict[str, torch.Tensor]]]


class Killed(BaseException):
    """What ends an attempt; not an Exception, so that nothing handles it."""


@pytest.fixture
def run(prose: Corpus, training: Callable[..., Training], model_for: Callable[..., nn.Module]) -> Run:
    """Train in a folder, and be killed after a step if told so, before that step's checkpoint is written."""

    def run_(folder: Path, kill_at: int | None = None, every: int = 1, precision: str = "fp32", before=None):
        def on_step(step: Step) -> None:
            if step.step == kill_at:
                raise Killed

        model = model_for(prose)
        torch.manual_seed(torch.seed())  # a new process begins with another global state
        settings = training(steps=STEPS, checkpoint_every=every, precision=precision, accumulation=2)
        trained = train(
            model,
            TrainingBatches(prose, 8, 0),
            Plan(settings, OBJECTIVE, 0, prose.info.vocabulary, "cpu", precision),
            signals=live(model_for(prose, seed=1, hidden=32), prose.info.vocabulary),
            checkpoints=Checkpoints(folder),
            on_step=on_step,
            before_checkpoint=before,
        )
        return trained, {name: tensor.clone() for name, tensor in model.state_dict().items()}

    return run_


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(trained: Trained) -> list[tuple[float, ...]]:
    return [(point["step"], point["loss"], point["ce"], point["kd"], point["grad_norm"]) for point in trained.curve["train"]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_resumed_at_any_step_ends_with_the_same_bits(run: Run, tmp_path: Path, precision: str) -> None:
    whole, expected = run(tmp_path / "whole", precision=precision)
    assert whole.resumed_at is None
    for step in range(2, STEPS + 1):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            run(folder, kill_at=step, precision=precision)
        resumed, found = run(folder, precision=precision)
        assert resumed.resumed_at == step - 1
        assert same(found, expected)
        assert losses(resumed) == losses(whole)
        assert resumed.tokens == whole.tokens


def test_a_training_killed_again_and_again_ends_with_the_same_bits(run: Run, tmp_path: Path) -> None:
    _, expected = run(tmp_path / "whole", every=2)
    for kill in (1, 4, 6):
        with pytest.raises(Killed):
            run(tmp_path / "often", kill_at=kill, every=2)
    trained, found = run(tmp_path / "often", every=2)
    assert trained.resumed_at == 4
    assert same(found, expected)
    finished, again = run(tmp_path / "often", every=2)
    assert finished.resumed_at == STEPS
    assert same(again, expected)


def test_dropout_is_resumed_to_the_bit(
    sentences: Corpus, training: Callable[..., Training], model_for: Callable[..., nn.Module], tmp_path: Path
) -> None:
    config = model_for(sentences).config
    config.hidden_dropout_prob = 0.3

    def attempt(folder: Path, kill_at: int | None = None) -> list[float]:
        def on_step(step: Step) -> None:
            seen.append(step.loss)
            if step.step == kill_at:
                raise Killed

        seen: list[float] = []
        torch.manual_seed(0)
        model = build(config, "sequence-classification")
        torch.manual_seed(torch.seed())
        plan = Plan(training(steps=4, checkpoint_every=1), None, 0, None)
        train(model, TrainingBatches(sentences, 8, 0), plan, checkpoints=Checkpoints(folder), on_step=on_step)
        return seen

    whole = attempt(tmp_path / "whole")
    with pytest.raises(Killed):
        attempt(tmp_path / "killed", 3)
    assert attempt(tmp_path / "killed") == whole[2:]
    config.hidden_dropout_prob = 0.0
    assert attempt(tmp_path / "dry")[0] != whole[0]


def test_the_newest_two_are_kept_and_none_is_a_pickle(run: Run, tmp_path: Path) -> None:
    kept: list[list[int]] = []
    checkpoints = Checkpoints(tmp_path / "work")
    run(tmp_path / "work", every=1, before=lambda: kept.append(checkpoints.steps()))
    assert kept == [[], [1], [1, 2], [2, 3], [3, 4], [4, 5]]
    assert checkpoints.steps() == [5, 6]
    files = {path.relative_to(tmp_path / "work").as_posix() for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert files == {f"step-0000000{n}/{name}" for n in (5, 6) for name in ("model.safetensors", "optimizer.safetensors", "state.json")}
    for path in (tmp_path / "work").rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:9]
            assert head[:1] == b"{" or head[8:9] == b"{"  # JSON, or safetensors: eight bytes of length, then JSON


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run: Run, tmp_path: Path, file: str, damage: str) -> None:
    _, expected = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "work", kill_at=5)
    checkpoints = Checkpoints(tmp_path / "work")
    assert checkpoints.steps() == [3, 4]
    path = tmp_path / "work" / "step-00000004" / file
    content = path.read_bytes()
    path.unlink()
    if damage != "removed":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    trained, found = run(tmp_path / "work")
    assert trained.resumed_at == 3
    assert same(found, expected)


def flip(path: Path, at: float) -> None:
    """Change one bit, at a fraction of the file."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("at", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_a_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(tmp_path: Path, file: str, at: float) -> None:
    said: list[str] = []
    model, other = nn.Linear(30, 30), nn.Linear(30, 30)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(30)).sum().backward()
    optimizer.step()
    state = {"best": math.inf, "tokens": 123456, "taid": [0.1, 0.2], "curve": {"train": [{"loss": 1.25, "valid": None}]}}
    checkpoints = Checkpoints(tmp_path, said.append)
    for step in (1, 2):
        checkpoints.save(step, model, optimizer, {**state, "tokens": step})
    flip(tmp_path / "step-00000002" / file, at)
    assert checkpoints.load(other, torch.optim.AdamW(other.parameters())) == (1, {**state, "tokens": 1})
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert len(said) == 1
    assert "damaged checkpoint" in said[0]
    assert "goes on from the one before, or begins anew" in said[0]
    flip(tmp_path / "step-00000001" / file, at)
    assert checkpoints.load(other, torch.optim.AdamW(other.parameters())) is None
    assert checkpoints.steps() == []


def test_a_checkpoint_without_hashes_is_read(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    Checkpoints(tmp_path).save(1, model, optimizer, {"tokens": 5})
    folder = tmp_path / "step-00000001"
    for name in ("model.safetensors", "optimizer.safetensors"):
        save_file(load_file(folder / name), folder / name)
    (folder / "state.json").write_text('{"tokens": 5}')
    assert Checkpoints(tmp_path).load(model, optimizer) == (1, {"tokens": 5})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: flip(path, 1.0),
    ],
)
def test_without_the_best_weights_so_far_a_training_begins_anew(damage: Callable[[Path], object], tmp_path: Path) -> None:
    checkpoints, model = Checkpoints(tmp_path), nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints.save_best(model)
    for step in (1, 2):
        checkpoints.save(step, model, optimizer, {"best": 1.5})
    assert checkpoints.load(model, optimizer) == (2, {"best": 1.5})
    damage(tmp_path / "best.safetensors")
    assert checkpoints.load(model, optimizer) is None
    checkpoints.save(3, model, optimizer, {"best": math.inf})
    assert checkpoints.load(model, optimizer) == (3, {"best": math.inf}), "no validation has been the best one yet"


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    model = nn.Linear(200, 200)
    optimizer = torch.optim.AdamW(model.parameters())
    with small_disk(tmp_path / "disk", "1m") as disk:
        checkpoints = Checkpoints(disk / "work")
        checkpoints.save(1, model, optimizer, {"best": math.inf})
        ballast = fill(disk)
        with pytest.raises(Exception, match="No space left on device"):
            checkpoints.save(2, model, optimizer, {"best": math.inf})
        assert checkpoints.load(model, optimizer) == (1, {"best": math.inf})
        ballast.unlink()
        checkpoints.save(2, model, optimizer, {"best": math.inf})
        assert checkpoints.steps() == [1, 2]


def test_a_training_without_a_whole_checkpoint_begins_anew(run: Run, tmp_path: Path) -> None:
    _, expected = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "work", kill_at=3)
    for step in Checkpoints(tmp_path / "work").steps():
        (tmp_path / "work" / f"step-{step:08d}" / "state.json").write_text("{")
    (tmp_path / "work" / "writing-3").mkdir()  # a write that was cut short
    trained, found = run(tmp_path / "work")
    assert trained.resumed_at is None
    assert same(found, expected)
    assert not list((tmp_path / "work").glob("writing-*"))


def test_tied_weights_come_back_tied(prose: Corpus, model_for: Callable[..., nn.Module], tmp_path: Path) -> None:
    model, other = model_for(prose), model_for(prose, seed=5)
    optimizers = [torch.optim.AdamW(m.parameters()) for m in (model, other)]
    Checkpoints(tmp_path).save(3, model, optimizers[0], {"tokens": 7})
    assert Checkpoints(tmp_path).load(other, optimizers[1]) == (3, {"tokens": 7})
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert other.get_output_embeddings().weight is other.get_input_embeddings().weight


def test_a_damaged_part_is_named_and_the_checkpoint_before_is_taken(tmp_path: Path) -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    kept = Checkpoints(tmp_path / "kept", (said := list[str]()).append)
    for step in (1, 2):
        kept.save(step, model, optimizer, {"best": math.inf})
    last = tmp_path / "kept" / "step-00000002"
    (last / "model.safetensors").rename(last / "model-00000.safetensors")
    (last / "optimizer.safetensors").rename(last / "optimizer-00000.safetensors")
    state = json.loads((last / "state.json").read_text()) | {"parts": 2}
    (last / "state.json").write_text(json.dumps(state))
    (last / "model-00001.safetensors").write_text("half of it")
    assert kept.load(model, optimizer) == (1, {"best": math.inf})
    assert "damaged checkpoint" in said[0]
