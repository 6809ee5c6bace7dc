"""A model server writes for `data.generate` what its model writes here, letter by letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.schema.generate import Endpoint
from models.engines.base import GenerationSettings
from models.engines.load import load_engine
from models.engines.torch_engine import TorchLanguageModel
from models.generation.endpoint import EndpointClient
from models.generation.writers import Ask, EndpointWriter, ModelWriter, Writer, WrittenAnswer
from tests.flows.model_server.conftest import TEMPLATE, Serve

ASKS = [Ask(str(number), f"say {'x' * number}", 7 * number) for number in range(6)] + [Ask("long", "y" * 80, 1)]
SETTINGS = GenerationSettings(max_tokens=9, temperature=0.8, top_p=0.95, stop=("q",))


def written(writer: Writer) -> dict[str, WrittenAnswer]:
    found: dict[str, WrittenAnswer] = {}
    writer.write(ASKS, lambda ask, answer: found.__setitem__(ask.key, answer), lambda: False)
    writer.close()
    return found


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_texts_are_those_of_the_model_itself(serve: Serve, api: str) -> None:
    running = serve("causal-lm", max_length=64, template=TEMPLATE)
    place = Path(running.state.serving.current.source.place)
    model = load_engine(place, "causal-lm", max_length=64)
    assert isinstance(model, TorchLanguageModel)
    here = written(ModelWriter(model, SETTINGS, batch=3, chat=api == "chat"))
    endpoint = Endpoint.model_validate({"url": f"{running.url}/v1", "model": "tiny", "api": api, "concurrency": 3, "retries": 0})
    there = written(EndpointWriter(EndpointClient(endpoint), SETTINGS))
    for ask in ASKS:
        assert (here[ask.key].text, here[ask.key].finish) == (there[ask.key].text, there[ask.key].finish)
    assert here["long"].finish == "refused"
    assert [here[key].read for key in "012345"] == [there[key].read for key in "012345"]
    assert [here[key].written for key in "012345"] == [there[key].written for key in "012345"]
