from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.errors import UserError
from models.data.batches import IGNORE, Batch, TrainingBatches, next_token_batch
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches

END, PAD = 256, 257
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CORPORA = ["prose", "sentences", "images"]


def same(a: Batch, b: Batch) -> bool:
    inputs = a.inputs.keys() == b.inputs.keys() and all(torch.equal(a.inputs[key], b.inputs[key]) for key in a.inputs)
    return inputs and torch.equal(a.targets, b.targets) and torch.equal(a.slices, b.slices)


@pytest.fixture(params=CORPORA)
def corpus(request: pytest.FixtureRequest) -> Corpus:
    return request.getfixturevalue(request.param)


def test_a_batch_is_a_function_of_seed_and_step_alone(corpus: Corpus) -> None:
    one, other = TrainingBatches(corpus, 7, seed=3), TrainingBatches(corpus, 7, seed=3)
    wandering = [other.at(step) for step in (30, 2, 9, 0, 2)]
    assert all(same(one.at(step), batch) for step, batch in zip((30, 2, 9, 0, 2), wandering, strict=True))
    assert not same(one.at(0), one.at(1))
    assert not same(one.at(0), TrainingBatches(corpus, 7, seed=4).at(0))


def numbered(lm_corpus: Callable[..., Corpus], windows: int, length: int, extra: int = 0) -> Corpus:
    """One document whose window i begins with the number i; the end id is its last."""
    ids = np.zeros(windows * length + extra, dtype=np.int64)
    ids[: windows * length : length] = np.arange(windows)
    return lm_corpus([ids.tolist()], length=length)


@pytest.mark.parametrize(("windows", "size"), [(10, 5), (10, 3), (7, 20), (1, 2)])
def test_an_epoch_visits_every_window_once(lm_corpus: Callable[..., Corpus], windows: int, size: int) -> None:
    batches = TrainingBatches(numbered(lm_corpus, windows, 4), size, seed=0)
    assert batches.examples == windows
    steps = -(-3 * windows // size)
    seen = [int(i) for step in range(steps) for i in batches.at(step).inputs["input_ids"][:, 0]]
    epochs = [seen[epoch * windows : (epoch + 1) * windows] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(windows)) for epoch in epochs)
    if windows > 5:
        assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(("pool", "size"), [(6, 3), (6, 4), (1, 5), (10, 4), (99, 4)])
def test_a_pool_is_the_beginning_of_the_whole_order_and_each_of_its_examples_is_read_as_often(
    lm_corpus: Callable[..., Corpus], pool: int, size: int
) -> None:
    corpus = numbered(lm_corpus, 10, 4)
    whole, part = TrainingBatches(corpus, 1, seed=5), TrainingBatches(corpus, size, seed=5, pool=pool)
    held = min(pool, 10)
    assert part.examples == held
    seen = np.concatenate([part.numbers(step) for step in range(-(-3 * held // size))])[: 3 * held]
    epochs = seen.reshape(3, held).tolist()
    assert epochs[0] == [int(whole.numbers(step)[0]) for step in range(held)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    if held > 5:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    if pool >= 10:
        assert all(same(part.at(step), TrainingBatches(corpus, size, seed=5).at(step)) for step in range(9))


def test_an_epoch_visits_every_example_once(images: Corpus) -> None:
    batches = TrainingBatches(images, 16, seed=1)
    pixels = torch.cat([batches.at(step).inputs["pixel_values"] for step in range(3)])
    assert {row.numpy().tobytes() for row in pixels} == {row.tobytes() for row in np.asarray(images.split("train").values)}


def test_no_token_of_the_training_text_is_lost_but_a_last_part_of_a_window(lm_corpus: Callable[..., Corpus]) -> None:
    corpus = numbered(lm_corpus, windows=6, length=4, extra=3)
    text = corpus.split("train").values
    batch = TrainingBatches(corpus, 6, seed=0).at(0)
    order = batch.inputs["input_ids"][:, 0].argsort()
    assert batch.targets[order].flatten().tolist() == text[1 : 6 * 4 + 1].tolist()
    assert len(text) - 1 - 6 * 4 < 4


def test_logits_at_a_position_must_predict_the_next_id(prose: Corpus) -> None:
    batch = TrainingBatches(prose, 8, seed=0).at(5)
    assert torch.equal(batch.inputs["input_ids"][:, 1:], batch.targets[:, :-1])
    assert (batch.targets != IGNORE).all()
    text = bytes((np.asarray(prose.split("train").values) % 256).astype(np.uint8))
    for row, targets in zip(batch.inputs["input_ids"], batch.targets, strict=True):
        assert bytes([*(row % 256).tolist(), int(targets[-1]) % 256]) in text


@QUICK
@given(st.data())
def test_padding_is_masked_by_position_and_never_by_id(data: st.DataObject) -> None:
    rows, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    # Only ids that mean end, padding, or zero: none of them may be taken for padding.
    ids = st.sampled_from([0, END, PAD])
    windows = np.array(data.draw(st.lists(st.lists(ids, min_size=length + 1, max_size=length + 1), min_size=rows, max_size=rows)))
    lengths = np.array(data.draw(st.lists(st.integers(1, length + 1), min_size=rows, max_size=rows)))
    batch = next_token_batch(windows, lengths, np.zeros(rows, dtype=np.int32))
    for row in range(rows):
        real = lengths[row] - 1
        assert batch.targets[row, :real].tolist() == windows[row, 1 : lengths[row]].tolist()
        assert (batch.targets[row, real:] == IGNORE).all()
    assert batch.valid == int((lengths - 1).sum())
    assert "attention_mask" not in batch.inputs


def test_a_document_of_end_and_padding_ids_is_learned(lm_corpus: Callable[..., Corpus]) -> None:
    corpus = lm_corpus([[PAD, END, PAD, PAD, END, PAD, END]], length=8)
    (batch,) = evaluation_batches(corpus, "valid", 100, 4)
    assert batch.targets.tolist() == [[PAD, END, PAD, PAD, END, PAD, END, END]]
    assert batch.inputs["input_ids"].tolist() == [[END, PAD, END, PAD, PAD, END, PAD, END]]


def reconstructed(batches: Iterator[Batch]) -> tuple[list[list[int]], list[int]]:
    """The documents that windows were cut from, by joining what each window predicts; and the slice of each."""
    documents, slices = [], []
    previous: list[int] = []
    for batch in batches:
        for inputs, targets, slice_ in zip(batch.inputs["input_ids"].tolist(), batch.targets.tolist(), batch.slices.tolist(), strict=True):
            predicted = [target for target in targets if target != IGNORE]
            assert targets[len(predicted) :] == [IGNORE] * (len(targets) - len(predicted))
            assert inputs[1 : len(predicted)] == predicted[:-1]
            if previous and len(previous) % len(targets) == 0 and inputs[0] == previous[-1] and previous[-1] != END:
                previous += predicted
            else:
                previous = predicted
                documents.append(previous)
                slices.append(slice_)
                assert inputs[0] == END
    return documents, slices


@QUICK
@given(st.lists(st.lists(st.integers(0, 255), max_size=30), min_size=1, max_size=6), st.integers(2, 9), st.integers(1, 5))
def test_evaluation_predicts_every_id_once_and_never_across_documents(lm_corpus, documents, length: int, size: int) -> None:
    corpus = lm_corpus(documents, length=length, slices=[i % 3 for i in range(len(documents))])
    found, slices = reconstructed(evaluation_batches(corpus, "valid", 10_000, size))
    assert found == [[*document, END] for document in documents]
    assert slices == [i % 3 for i in range(len(documents))]


def test_evaluation_batches_are_fixed_and_drawn_over_the_whole_split(lm_corpus: Callable[..., Corpus]) -> None:
    corpus = lm_corpus([[i % 256] * 7 for i in range(200)], length=8)
    few = [int(i) for batch in evaluation_batches(corpus, "valid", 30, 7) for i in batch.inputs["input_ids"][:, 1]]
    again = [int(i) for batch in evaluation_batches(corpus, "valid", 30, 30) for i in batch.inputs["input_ids"][:, 1]]
    assert few == again
    assert len(set(few)) == 30
    assert min(few) < 50
    assert max(few) > 150


def test_classification_batches_carry_whole_examples_and_their_labels(sentences: Corpus) -> None:
    split = sentences.split("train")
    known = {tuple(split.values[split.offsets[i] : split.offsets[i + 1]].tolist()): int(split.labels[i]) for i in range(len(split))}
    batch = TrainingBatches(sentences, 16, seed=0).at(0)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    lengths = mask.sum(1)
    assert len(set(lengths.tolist())) > 1
    assert int(lengths.max()) == ids.shape[1]
    for row, length, label in zip(ids.tolist(), lengths.tolist(), batch.targets.tolist(), strict=True):
        assert known[tuple(row[:length])] == label
        assert row[length:] == [PAD] * (len(row) - length)
    assert mask.tolist() == [[1] * n + [0] * (ids.shape[1] - n) for n in lengths.tolist()]
    assert batch.valid == 16


def test_evaluation_of_classifiers_sees_every_example_once_with_its_slice(sentences: Corpus, images: Corpus) -> None:
    for corpus in (sentences, images):
        split = corpus.split("test")
        batches = list(evaluation_batches(corpus, "test", 1000, 7))
        assert torch.cat([batch.targets for batch in batches]).tolist() == split.labels.tolist()
        assert torch.cat([batch.slices for batch in batches]).tolist() == split.slices.tolist()
        assert sum(len(batch.targets) for batch in evaluation_batches(corpus, "test", 10, 4)) == 10


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts_make_the_whole(corpus: Corpus, parts: int) -> None:
    batch = TrainingBatches(corpus, 12, seed=0).at(0)
    pieces = [batch.part(index, parts) for index in range(parts)]
    assert {len(piece.targets) for piece in pieces} == {12 // parts}
    whole = Batch(
        {key: torch.cat([piece.inputs[key] for piece in pieces]) for key in batch.inputs},
        torch.cat([piece.targets for piece in pieces]),
        torch.cat([piece.slices for piece in pieces]),
    )
    assert same(whole, batch)
    assert sum(piece.valid for piece in pieces) == batch.valid


def test_a_text_shorter_than_a_sequence_is_refused_by_name(lm_corpus: Callable[..., Corpus]) -> None:
    with pytest.raises(UserError, match=r"data\.sequence_length: got 8; allowed: at most 3"):
        TrainingBatches(lm_corpus([[1, 2, 3]], length=8), 4, seed=0)
