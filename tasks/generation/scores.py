"""Perplexities of answers under a checkpoint, or the last round's student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.schema.generate import Generate
from conf.schema.teacher import CheckpointTeacher
from models.base.device import resolve_device
from tasks.data.reading.conversations import columns_of
from tasks.generation.select import Perplexities
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher_source import resolve_checkpoint

STUDENT = "student"


def perplexities_of(settings: Generate, inputs: StageInputs, student: StageRecord | None) -> tuple[Perplexities | None, str | None]:
    """The function that computes perplexities, and what tells its model from others; None where no rule asks, or no student is trained yet.

    Raises:
        UserError: The checkpoint cannot be found or read.
    """
    rule = settings.selection.perplexity
    if rule is None:
        return None, None
    if rule.model == STUDENT:
        if student is None:
            log.info("generate: no student is trained yet, so perplexity drops nothing in the first round")
            return None, None
        folder, known = Path(student.folder), student.weights_sha256
    else:
        folder = resolve_checkpoint(CheckpointTeacher(path=rule.model), inputs.context)
        known = weights_of(folder)

    def compute(pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        from models.generation.perplexity import perplexities

        return perplexities(losses_of(folder, pairs, inputs))

    return compute, known


def weights_of(folder: Path) -> str:
    """Hash of the weights in a folder."""
    from models.base.files import file_sha256
    from tasks.store.fingerprint import fingerprint

    return fingerprint({path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))})


def losses_of(folder: Path, pairs: Sequence[tuple[str, str]], inputs: StageInputs, ended: Sequence[bool] | None = None) -> list[float]:
    """Mean cross-entropy of each answer under a model, in nats of its own tokens; see `mean_losses`."""
    from models.architectures.checkpoint import load_model
    from models.data import tokenizers
    from models.generation.perplexity import mean_losses

    tokenizer = tokenizers.load_teacher(folder)
    chat = columns_of(inputs.ladder.data).conversations and tokenizer.chat_template is not None
    model = load_model(folder, "causal-lm").to(resolve_device(inputs.ladder.compute.device)).eval().requires_grad_(False)
    return mean_losses(model, tokenizer, pairs, chat, ended)
