"""`training.compile`: layers through `torch.compile`.

The layers of a student and of its live teachers are compiled for the length of a training, each by itself: equal layers share their
code, so that the start does not grow with the depth, and the code between the layers, hooks of sharding among it, stays as it is. Only
steps of training run compiled: what a student writes between them, one position at a time, and validations, whose last batches are
smaller, would be compiled for every shape.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import nn

from conf.errors import UserError

COMPILER = "clang++" if sys.platform == "darwin" else "g++"  # which torch.compile calls for a processor, where CXX names no other


def check_compiler(wanted: bool, device: str, key: str) -> None:
    """Refuse to compile for a processor where there is no C++ compiler.

    Args:
        wanted: Whether `key` asks for it.
        device: `cpu` or `cuda`.
        key: The setting, for the message.

    Raises:
        UserError: There is none.
    """
    compiler = os.environ.get("CXX") or COMPILER
    if wanted and device == "cpu" and shutil.which(compiler) is None:
        allowed = f"false on a machine without a C++ compiler; there is no {compiler}"
        raise UserError.about(key, True, allowed, f"Install {COMPILER}, name another one in CXX, or leave it out.")


def compile_layers(model: nn.Module) -> list[nn.Module]:
    """Compile each layer of a model, in place, when it is first called; a model without layers as a whole. Returns the compiled modules."""
    found = [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part if list(layer.parameters())]
    inner = {id(part) for layer in found for part in layer.modules() if part is not layer}
    outermost = [layer for layer in found if id(layer) not in inner] or [cast(Any, model).base_model]
    for layer in outermost:
        layer.compile()
    return outermost


@contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """Compile a student's layers for a while.

    Raises:
        UserError: A layer of this model, or of a teacher that was compiled, cannot be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException

    torch._dynamo.reset()  # layers of earlier trainings would count against the most shapes of a function
    layers = compile_layers(model)
    try:
        yield
    except TorchDynamoException as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        allowed = f"false where torch.compile fails: {reason[:300]}"
        raise UserError.about("training.compile", True, allowed, "Install what it asks for, or leave training.compile out.") from error
    finally:
        for layer in layers:
            cast(Any, layer)._compiled_call_impl = None


def eager(compiles: bool) -> AbstractContextManager[Any]:
    """Run a training's layers as they are written for a while, where it compiles them."""
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()
