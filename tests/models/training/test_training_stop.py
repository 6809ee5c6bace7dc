"""A stopped training loses no step and resumes with the same result."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from conf.errors import RunCancelled
from conf.schema.stage.training import Training
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, train
from tests.flows.driver import clean_environment, run_together

pytestmark = pytest.mark.processes

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]


@pytest.mark.parametrize("stop", [1, 3, 4, 8], ids=["the first", "between checkpoints", "at a checkpoint", "the last"])
def test_a_stopped_training_finishes_its_step_and_resumes_from_there(
    prose: Corpus, training: Settings, model_for: Make, tmp_path: Path, stop: int
) -> None:
    lesson, events, steps = training(steps=8, checkpoint_every=4), list[str](), list[Step]()
    plan = Plan(lesson, None, 0, prose.info.vocabulary)
    whole = model_for(prose)
    train(whole, TrainingBatches(prose, 8, 0), plan)

    checkpoints, model = Checkpoints(tmp_path / "work"), model_for(prose)

    def flush() -> None:
        events.append(f"flushed {steps[-1].step}, saved {checkpoints.steps()}")

    with pytest.raises(RunCancelled, match=f"^at step {stop} of 8$"):
        train(
            model,
            TrainingBatches(prose, 8, 0),
            plan,
            checkpoints=checkpoints,
            on_step=steps.append,
            before_checkpoint=flush,
            should_stop=lambda: steps[-1].step == stop,
        )
    assert [step.step for step in steps] == list(range(1, stop + 1))
    assert checkpoints.steps()[-1] == stop
    assert events[-1] == f"flushed {stop}, saved {[4] if stop == 8 else []}", "records of a step are sent before its checkpoint exists"

    again = model_for(prose, seed=5)
    more: list[Step] = []
    trained = train(again, TrainingBatches(prose, 8, 0), plan, checkpoints=checkpoints, on_step=more.append, should_stop=lambda: False)
    assert (trained.steps, trained.resumed_at) == (8, stop)
    assert [step.step for step in more] == list(range(stop + 1, 9))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), whole.state_dict().values(), strict=True))


TWO = """
import sys, torch
from pathlib import Path
from conf.errors import RunCancelled
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.training.checkpoints import Checkpoints
from models.base.interface import Interface
from models.architectures.shapes import build, config_for
from models.training.loop import Plan, train
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
corpus = Corpus(folder, "hash")
info = corpus.info
interface = Interface(info.workload, info.sequence_length, info.vocabulary, info.end_id, info.pad_id, info.classes, info.image_shape)
shape = Shape.model_validate({"family": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32, "tied_embeddings": False})
torch.manual_seed(0)
model = build(config_for(shape, interface), info.workload)
if sys.argv[3] == "unused":
    model.unused = torch.nn.Linear(2, 2)  # no gradient reaches it, and no process waits for one
lesson = Training.model_validate({"steps": 50, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"})
steps = []
try:
    train(model, TrainingBatches(corpus, 8, 0), Plan(lesson, None, 0, info.vocabulary), on_step=steps.append,
          should_stop=lambda: rank == 1 and len(steps) == 3)
except RunCancelled as error:
    print(error, flush=True)
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("parameters", ["used", "unused"])
def test_all_processes_of_a_training_stop_at_the_same_step(prose: Corpus, parameters: str) -> None:
    """Only the second of two is asked: a signal reaches one process. The head is a parameter of its own, outside the model's forward."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = clean_environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    ended = run_together(
        TWO, [(rank, prose.folder, parameters) for rank in (0, 1)], [common | {"RANK": str(r), "LOCAL_RANK": str(r)} for r in (0, 1)]
    )
    assert [done.out for done in ended] == ["at step 3 of 50\n"] * 2, ended
