"""A picture's place, a prompt and its answer become the ids that transformers' own processors give."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conf.errors import UserError
from models.data.chat import conversation_text
from models.multimodal.encoder import PictureEncoder, RowTooLong
from models.multimodal.processors import placeholder
from tests.vision_models import TEMPLATE, picture, processor

PROMPT, ANSWER = "what is it?", "a fox"


def encoder(kind: str, template: str | None, length: int = 100) -> PictureEncoder:
    own = processor(kind, template)
    own.tokenizer.chat_template = template
    return PictureEncoder(own.tokenizer, length, template is None, placeholder(own, picture(0)))


@pytest.mark.parametrize(("kind", "count"), [("idefics3", 4), ("llava", 16)])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_ids_are_the_processors_and_the_answer_alone_counts(kind: str, count: int, template: str | None) -> None:
    own, made = processor(kind, template), encoder(kind, template)
    assert made.placeholder.count == count
    if template is None:
        text = f"<image>{PROMPT}{ANSWER}<|end|>"
    else:
        asked = [{"type": "image"}, {"type": "text", "text": PROMPT}]
        answered = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
        text = own.apply_chat_template([{"role": "user", "content": asked}, answered])
    wanted = own(text=[text], images=[picture(1)])["input_ids"][0]
    (found,) = made.conversations([conversation_text(prompt=PROMPT, completion=ANSWER)])
    assert found.ids.tolist() == wanted
    assert own.tokenizer.decode(found.ids[found.counted == 1].tolist()) == f"{ANSWER}<|end|>"
    assert (found.size, found.cut) == (len(ANSWER), 0)


def test_a_row_that_does_not_fit_is_refused_and_never_cut() -> None:
    text = conversation_text(prompt=PROMPT, completion=ANSWER)
    whole = len(encoder("idefics3", None).conversations([text])[0].ids)
    assert len(encoder("idefics3", None, whole).conversations([text])[0].ids) == whole
    with pytest.raises(RowTooLong, match=rf"sequence_length: got {whole - 2}; allowed: at least {whole - 1}, the ids of a picture \(4\)"):
        encoder("idefics3", None, whole - 1).conversations([text])


def test_the_word_for_a_picture_has_no_place_in_a_row() -> None:
    with pytest.raises(UserError, match="prompts and answers without <image>"):
        encoder("idefics3", None).conversations([conversation_text(prompt="see <image>", completion="x")])


def test_a_template_without_pictures_is_refused() -> None:
    blind = "{% for message in messages %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match="a template that writes <image> once"):
        encoder("idefics3", blind).conversations([conversation_text(prompt=PROMPT, completion=ANSWER)])


def test_marked_answers_are_found_behind_the_picture() -> None:
    marked = (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'][0]['text'] }}"
        "{% endgeneration %}{% else %}<image>{{ message['content'][1]['text'] }}{% endif %}{% endfor %}"
    )
    (found,) = encoder("llava", marked).conversations([json.dumps({"prompt": PROMPT, "completion": ANSWER})])
    assert bytes(found.ids[found.counted == 1].astype(np.uint8)).decode() == ANSWER
