"""Order, counts and arithmetic of latency measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import config_for, count
from models.base.interface import Interface
from models.speed.latency import RequestShape, check_length, measure_rounds, request_inputs, sequence_tokens, threads_of
from models.speed.roofline import Overhead, bandwidth, bytes_of, least_seconds, overhead, roofline_seconds
from models.students.initialise import random_model

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
WORKLOADS = {"causal-lm": "llama", "sequence-classification": "bert", "image-classification": "vit"}


def model_of(workload: str, layers: int = 2, **shape: Any) -> nn.Module:
    interface = Interface(workload, 16, 40, 1, 0, 0 if workload == "causal-lm" else 3, (1, 8, 8))
    made = Shape.model_validate({"family": WORKLOADS[workload], "hidden_size": 8, "layers": layers, "heads": 2, "feed_forward": 12} | shape)
    return random_model(config_for(made, interface), workload, 0).eval()


def test_models_run_in_turn_and_the_first_one_changes() -> None:
    models, heard = {name: model_of("image-classification") for name in "abc"}, list[str]()
    for name, model in models.items():
        model.register_forward_hook(lambda *_, name=name: heard.append(name))
    times = measure_rounds(models, "image-classification", [1, 2], RequestShape(16, 4), rounds=3, warmup=1)
    assert "".join(heard) == "aabbcc" + "bbccaa" + "ccaabb" + "aabbcc"
    assert {(name, size, len(each.whole)) for name, sizes in times.items() for size, each in sizes.items()} == {
        (name, size, 3) for name in "abc" for size in (1, 2)
    }
    assert all(not each.prefill and not each.decode for sizes in times.values() for each in sizes.values())


def test_a_language_model_keeps_its_keys_and_values() -> None:
    model, seen = model_of("causal-lm"), list[tuple[tuple[int, ...], int, bool]]()

    def listen(module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> None:
        held = keywords.get("past_key_values")
        seen.append((tuple(keywords["input_ids"].shape), held.get_seq_length() if held is not None else 0, keywords["use_cache"]))

    model.register_forward_pre_hook(listen, with_kwargs=True)
    assert model.config.use_cache is False  # as every checkpoint is loaded here
    times = measure_rounds({"m": model}, "causal-lm", [3], RequestShape(5, 4), rounds=2, warmup=0)["m"][3]
    assert seen == 2 * [((3, 5), 0, True), ((3, 1), 5, True), ((3, 1), 6, True), ((3, 1), 7, True)]
    assert (len(times.whole), len(times.prefill), len(times.decode)) == (2, 2, 6)
    assert times.whole == pytest.approx([times.prefill[i] + sum(times.decode[3 * i : 3 * i + 3]) for i in range(2)])


def test_a_time_limit_ends_the_measurement_after_one_measured_round() -> None:
    times = measure_rounds(
        {"m": model_of("image-classification")}, "image-classification", [1], RequestShape(1, 1), 1000, 1000, most_seconds=1e-9
    )
    assert len(times["m"][1].whole) == 1


def test_every_round_is_told() -> None:
    told: list[int] = []
    measure_rounds({"m": model_of("image-classification")}, "image-classification", [1], RequestShape(1, 1), 2, 1, on_round=told.append)
    assert told == [1, 2, 3]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_requests_have_the_given_size(workload: str) -> None:
    model = model_of(workload)
    inputs = request_inputs(model, workload, 3, 7)
    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    text = {"input_ids": (3, 7)}
    assert (
        shapes
        == {
            "causal-lm": text,
            "sequence-classification": text | {"attention_mask": (3, 7)},
            "image-classification": {"pixel_values": (3, 1, 8, 8)},
        }[workload]
    )
    assert sequence_tokens(model, workload, 7) == (17 if workload == "image-classification" else 7)
    model(**inputs)


def test_a_request_longer_than_the_models_positions_is_refused() -> None:
    model = model_of("causal-lm")
    check_length(model, "m", "causal-lm", RequestShape(2000, 48))
    with pytest.raises(UserError, match=r"bench.prompt_tokens: got '2000 and bench.new_tokens 49'; allowed: together at most 2048"):
        check_length(model, "m", "causal-lm", RequestShape(2000, 49))
    encoder = model_of("sequence-classification")
    check_length(encoder, "m", "sequence-classification", RequestShape(512, 99))  # an encoder writes nothing
    with pytest.raises(UserError, match=r"bench\.prompt_tokens: got 513"):
        check_length(encoder, "m", "sequence-classification", RequestShape(513, 0))


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads_of(before + 1) as count_:
        assert count_ == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with threads_of(None) as count_:
        assert count_ == before


class TestRoofline:
    def test_by_hand(self) -> None:
        fixed = Overhead(0.001, 0.002)
        assert least_seconds(4, fixed, moved=8e6, speed=2e9, operations=1e6, flops=1e9) == pytest.approx(0.004 + 0.004 + 0.002)
        assert least_seconds(4, fixed, moved=8e6, speed=2e9, operations=9e6, flops=1e9) == pytest.approx(0.004 + 0.009 + 0.002)

    def test_bytes_of_a_model(self) -> None:
        model = model_of("causal-lm", layers=3, key_value_heads=1)
        found = bytes_of(model)
        assert found.weights == 4 * sum(p.numel() for p in model.parameters())  # the head shares the embedding's matrix
        assert found.key_value == 2 * 3 * 1 * 4 * 4  # keys and values, layers, heads, features of a head, bytes
        assert bytes_of(model.to(torch.bfloat16)).key_value == 2 * 3 * 1 * 4 * 2

    def test_a_token_moves_all_weights_and_the_cache(self) -> None:
        model, nothing = model_of("causal-lm"), Overhead(0.0, 0.0)
        whole, token = roofline_seconds(model, "causal-lm", 3, RequestShape(10, 4), nothing, speed=1.0, flops=1e30)
        each = bytes_of(model)
        assert (whole, token) == (each.weights, each.weights + 3 * 12 * each.key_value)
        whole, token = roofline_seconds(model, "causal-lm", 3, RequestShape(10, 4), nothing, speed=1e30, flops=1.0)
        size = count(model, 10)
        last = size.forward_flops - 9 * 2 * cast(Any, model).get_output_embeddings().weight.numel()  # of ten tokens only the last needs it
        assert (whole, token) == (3 * last, pytest.approx(3 * size.forward_flops / 10))

    @pytest.mark.parametrize("workload", WORKLOADS)
    def test_the_constants_are_measured_for_every_architecture(self, workload: str) -> None:
        fixed = overhead(model_of(workload), workload, rounds=5)
        assert fixed.layer >= 0
        assert fixed.head >= 0
        assert fixed.layer + fixed.head > 0

    def test_bandwidth(self) -> None:
        assert 1e7 < bandwidth(2**20, torch.float32, torch.device("cpu")) < 1e13


@pytest.mark.slow
def test_a_start_in_a_process_of_its_own(tmp_path: Path) -> None:
    save_model(model_of("causal-lm"), tmp_path / "model", None)
    ballast = np.ones(2**27)  # 1 GiB here must not be counted there
    words = [str(tmp_path / "model"), "causal-lm", "fp32", "cpu", "1", "2", "4", "3"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "models.speed.startup_probe", *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    figures = json.loads(done.stdout)
    assert figures["library_bytes"] < figures["peak_bytes"] < ballast.nbytes
    assert min(figures[name] for name in ("import_seconds", "load_seconds", "first_seconds")) > 0
    assert figures["gpu_bytes"] is None
