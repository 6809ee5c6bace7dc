"""Teacher and student of different vocabularies meet in the same ids."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf.errors import UserError
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data.batches import IGNORE, TrainingBatches
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches
from models.students.vocabulary import KEPT, VocabularyMap, read_kept, reduce_corpus, resize_vocabulary, write_kept


def test_ids_and_targets_by_hand() -> None:
    small = VocabularyMap((0, 3, 4, 9))
    ids = torch.tensor([[9, 0], [4, 3]])
    assert small.inputs(ids).tolist() == [[3, 0], [2, 1]]
    assert small.targets(torch.tensor([9, IGNORE, 3])).tolist() == [3, IGNORE, 1]
    for dropped in (1, 10):
        with pytest.raises(ValueError, match="dropped"):
            small.inputs(torch.tensor([dropped]))


def test_the_corpus_is_read_in_the_smaller_ids(corpus: Corpus, kept: VocabularyMap) -> None:
    small = reduce_corpus(corpus, kept)
    info = small.info
    assert (info.vocabulary, info.end_id, info.pad_id) == (len(kept.kept), int(kept.ids(0)), int(kept.ids(1)))
    assert small.content_hash != corpus.content_hash
    originals = torch.tensor(kept.kept)
    for step in (0, 3, 100):
        ours, theirs = TrainingBatches(small, 4, 1).at(step), TrainingBatches(corpus, 4, 1).at(step)
        assert torch.equal(originals[ours.inputs["input_ids"]], theirs.inputs["input_ids"])
        assert torch.equal(originals[ours.targets], theirs.targets)
    pairs = zip(evaluation_batches(small, "valid", 20, 8), evaluation_batches(corpus, "valid", 20, 8), strict=True)
    for ours, theirs in pairs:
        assert torch.equal(ours.targets, kept.targets(theirs.targets))


@pytest.mark.parametrize("tied", [True, False])
def test_a_teacher_answers_in_the_smaller_ids(tied: bool) -> None:
    shape = Shape(hidden_size=16, layers=2, heads=2, feed_forward=24, tied_embeddings=tied)
    torch.manual_seed(0)
    model: Any = build(config_for(shape, Interface("causal-lm", 16, vocabulary=40, end_id=0, pad_id=1)), "causal-lm").eval()
    small = VocabularyMap((0, 1, 5, 7, 39))
    ids = torch.tensor([[5, 39, 7, 0]])
    expected = model(input_ids=ids).logits[..., list(small.kept)]
    resize_vocabulary(model, small)
    assert torch.allclose(model(input_ids=small.inputs(ids)).logits, expected, atol=1e-6)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert model.config.vocab_size == 5


def test_a_teacher_may_have_fewer_ids_and_never_fewer_than_the_student() -> None:
    student, teacher = VocabularyMap((2, 5)), VocabularyMap((1, 2, 5, 8))
    assert student.within(teacher, "stages[1].student.vocabulary").kept == (1, 2)
    assert student.within(None, "k") is student
    with pytest.raises(UserError, match=r"stages\[1\]\.student\.vocabulary: got '4 ids'; allowed: .*lacks 2 of them"):
        teacher.within(student, "stages[1].student.vocabulary")


def test_an_exported_student_loads_in_plain_transformers_and_writes_text(
    corpus: Corpus, kept: VocabularyMap, smaller: Path, tmp_path: Path
) -> None:
    info = reduce_corpus(corpus, kept).info
    interface = Interface("causal-lm", 32, info.vocabulary, info.end_id, info.pad_id)
    torch.manual_seed(0)
    model = build(config_for(Shape(hidden_size=16, layers=1, heads=2, feed_forward=24), interface), "causal-lm")
    save_model(model, tmp_path, smaller)
    write_kept(kept, tmp_path)
    read, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("def main():", return_tensors="pt").input_ids
    text = tokenizer.decode(read.generate(ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)[0])
    assert text.startswith("def main():")
    assert read.get_input_embeddings().weight.shape == (len(kept.kept), 16)
    assert read_kept(tmp_path) == kept
    assert (tmp_path / KEPT).stat().st_size < 10 * len(kept.kept)
