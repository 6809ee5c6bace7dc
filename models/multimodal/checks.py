"""Check that a vision-language model takes the pictures of the data."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from conf.errors import foreign_errors
from models.data.batches import evaluation_batches
from models.data.corpus import Corpus


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
    one = next(evaluation_batches(corpus, "valid", 1, 1)).to(next(model.parameters()).device)
    allowed = f"a model that makes {picture.count} features of pixels {list(picture.shape)}, as the teacher's processor gives them"
    remedy = "Take image_size, patch_size and the step down to features from the teacher's configuration."
    training = model.training
    with foreign_errors(key, found, allowed, remedy), torch.no_grad():
        cast(Any, model).eval()(**one.arguments)
    model.train(training)
