"""A recorded step of one id gives the bits of the model's own, for every type of model that is recorded, and for no other."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from models.architectures.attention import single_precision_gradient
from models.architectures.gated import lean_gates
from models.training import reading
from models.training.reading import RECORDED, Recording
from models.training.rollout import Written, write

pytestmark = pytest.mark.thorough

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
WHOLE = {"mistral": {"sliding_window": None}}  # attention to the whole text
PROMPTS = [torch.arange(3, 3 + length) * 7 % 300 for length in (9, 4, 14, 5, 6)]


def model_of(kind: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SHAPE, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, **changes})
    return AutoModelForCausalLM.from_config(config).train()


def written(model: nn.Module, recording: Recording | None, end: int | None = None, seed: int = 5) -> Written:
    words = {"end_id": end, "vocabulary": 300, "temperature": 1.0}
    return write(model, PROMPTS, [40, 40, 16, 40, 30], seed=seed, recording=recording, **words)


def equal(one: Written, other: Written) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def every_logit(model: nn.Module, recording: Recording | None, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the drawing sees at each id."""
    seen, draw = list[Tensor](), reading.Reader.__call__

    def kept(reader: reading.Reader, ids: Tensor) -> Tensor:
        seen.append(draw(reader, ids).clone())
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(reading.Reader, "__call__", kept)
        written(model, recording)
    return torch.cat(seen)


@pytest.mark.parametrize("kind", sorted(RECORDED))
def test_what_is_recorded_is_the_model_to_the_last_bit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of several lengths, rows that leave the batch, and weights that a step changed since the recording."""
    model = model_of(kind, **WHOLE.get(kind, {}))
    recording, plain = Recording(model), written(model, None)
    assert equal(written(model, recording), plain)
    assert recording.recorded
    assert torch.equal(every_logit(model, recording, monkeypatch), every_logit(model, None, monkeypatch))
    ended = int(plain.ids[0, 20])
    assert equal(written(model, recording, ended), written(model, None, ended))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    changed = written(model, None)
    assert not torch.equal(changed.ids, plain.ids)
    assert equal(written(model, recording), changed)


def test_nothing_of_a_recorded_step_runs_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the layers that a training changes: the first text is recorded at its second id, and later ones read their prompts alone."""
    model, calls = model_of("llama"), list[int]()
    with lean_gates(model), single_precision_gradient(model):
        recording = Recording(model)
        plain, forward = written(model, recording), nn.Linear.forward

        def counted(layer: nn.Linear, input: Tensor) -> Tensor:
            calls.append(input.shape[1])
            return forward(layer, input)

        monkeypatch.setattr(nn.Linear, "forward", counted)
        assert equal(written(model, recording), plain)
    assert calls == [4] * 14 + [1]  # the shortest prompt: all products of two layers, and the head for its last id


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
        ("mistral", {"sliding_window": 8}),
        ("gemma2", {"head_dim": 8}),
        ("llama", {"attn_implementation": "eager"}),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_other_models_run_as_they_are_written(kind: str, changes: dict[str, object]) -> None:
    model = model_of(kind, **changes)
    recording = Recording(model)
    assert equal(written(model, recording), written(model, None))
    assert not recording.recorded


def test_weights_that_were_replaced_are_recorded_anew() -> None:
    model = model_of("llama")
    recording, before = Recording(model), written(model, None)
    assert equal(written(model, recording), before)
    model.load_state_dict({name: weight + 0.1 * torch.randn_like(weight) for name, weight in model.state_dict().items()}, assign=True)
    assert not torch.equal(written(model, None).ids, before.ids)
    assert equal(written(model, recording), written(model, None))
    assert recording.recorded


def test_what_cannot_be_recorded_runs_as_it_is_written() -> None:
    model = model_of("llama")
    model.get_submodule("lm_head").register_full_backward_hook(lambda *_: None)  # which torch.jit refuses
    recording = Recording(model)
    assert equal(written(model, recording), written(model, None))
    assert not recording.recorded


@pytest.mark.parametrize("half", [False, True])
def test_packed_and_rounded_weights_are_not_recorded(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made anew for each text."""
    from models.training import rollout

    monkeypatch.setattr(rollout, "FEW" if half else "LARGE", 1)
    model = model_of("llama")
    recording = Recording(model)
    write(
        model,
        PROMPTS,
        [20] * 5,
        end_id=None,
        vocabulary=300,
        temperature=1.0,
        seed=1,
        precision="bf16" if half else "fp32",
        recording=recording,
    )
    assert not recording.recorded
