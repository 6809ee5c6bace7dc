"""Check that a vision-language model takes the pictures of the data."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from conf.errors import UserError, foreign_errors
from models.data.batches import Batch
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches


def check_space(model: nn.Module, teacher: nn.Module, corpus: Corpus, key: str, found: str) -> None:
    """Refuse a student whose embeddings of pictures and texts have more or fewer numbers than its teacher's.

    Args:
        model: The student, with any weights.
        teacher: Of it.
        corpus: Of pictures with texts.
        key: Dotted key to blame.
        found: The value to show.

    Raises:
        UserError: Naming both numbers.
    """
    one = next(evaluation_batches(corpus, "valid", 1, 1))
    with torch.no_grad():
        own, theirs = (_numbers(each, one) for each in (model, teacher))
    if own != theirs:
        given = f"{found} with embeddings of {own} numbers"
        raise UserError.about(key, given, f"embeddings of {theirs} numbers, as its teacher's", "Choose the teacher's model_type or widths.")


def _numbers(model: nn.Module, one: Batch) -> int:
    """Numbers of an embedding."""
    moved = one.to(next(model.parameters()).device)
    return int(cast(Any, model).eval()(**moved.arguments).logits.shape[-1])


def check_features(model: nn.Module, corpus: Corpus, key: str, found: str) -> None:
    """Refuse a model that makes another number of features of a picture than the processor leaves places for.

    Args:
        model: With any weights.
        corpus: Of pictures with texts.
        key: Dotted key to blame.
        found: The value to show.

    Raises:
        UserError: In the words of transformers.
    """
    picture = corpus.info.picture
    assert picture is not None
    makes = f"a model that makes {picture.count} features of" if picture.count else "a model that embeds"
    one = next(evaluation_batches(corpus, "valid", 1, 1)).to(next(model.parameters()).device)
    allowed = f"{makes} pixels {list(picture.shape)}, as the teacher's processor gives them"
    remedy = "Take image_size, patch_size and the step down to features from the teacher's configuration."
    training = model.training
    with foreign_errors(key, found, allowed, remedy), torch.no_grad():
        cast(Any, model).eval()(**one.arguments)
    model.train(training)
