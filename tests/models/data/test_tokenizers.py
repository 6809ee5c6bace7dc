import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertConfig, LlamaConfig, PreTrainedTokenizerFast

from conf.errors import UserError
from models.data import tokenizers
from models.data.encoder import AT_ONCE
from models.data.tokenizers import END, PAD

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
PROSE = [f"the quick brown fox number {n} jumps over the lazy dog, and the {n} hounds look on" for n in range(60)]
HOSTILE = "before <|end|> between<|pad|><|end|>\x00 after"
BYTES = tokenizers.bytes_tokenizer()


@pytest.fixture(scope="module")
def bpe() -> PreTrainedTokenizerFast:
    return tokenizers.train_bpe(PROSE, 300)


def bert_like() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "the", "fox", "a", "sep", "s", "##ep"]
    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )


def unigram() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator([*PROSE, "a < b > c / s"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def test_bytes_have_the_documented_ids() -> None:
    assert (len(BYTES), BYTES.eos_token_id, BYTES.bos_token_id, BYTES.pad_token_id) == (258, 256, 256, 257)
    assert BYTES.convert_tokens_to_ids([END, PAD]) == [256, 257]
    assert tokenizers.special_ids(BYTES) == (256, 257)


@given(UNICODE)
def test_bytes_are_the_tokenizers_own_ids_and_come_back(text: str) -> None:
    (ids,) = tokenizers.encode(BYTES, [text])
    assert ids.tolist() == list(text.encode())
    assert ids.tolist() == BYTES(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert BYTES.decode(ids.tolist()) == text


@pytest.mark.parametrize("config", [None, LlamaConfig(), BertConfig()], ids=["alone", "llama", "bert"])
def test_a_saved_tokenizer_loads_in_plain_transformers_beside_any_model(tmp_path: Path, config: LlamaConfig | BertConfig | None) -> None:
    tokenizers.save(BYTES, tmp_path)
    if config is not None:
        config.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("né\n")["input_ids"] == list("né\n".encode())
    assert (loaded.eos_token_id, loaded.pad_token_id, len(loaded)) == (256, 257, 258)
    assert tokenizers.encode(tokenizers.load(tmp_path), ["né"])[0].tolist() == list("né".encode())


@given(UNICODE)
def test_bpe_gives_every_text_back(bpe: PreTrainedTokenizerFast, text: str) -> None:
    (ids,) = tokenizers.encode(bpe, [text])
    assert bpe.decode(ids.tolist()) == text


def test_a_trained_bpe_has_the_given_size_and_shortens_its_texts(bpe: PreTrainedTokenizerFast) -> None:
    assert len(bpe) == 300
    assert tokenizers.special_ids(bpe) == (0, 1)
    assert bpe.convert_ids_to_tokens([0, 1]) == [END, PAD]
    assert len(tokenizers.encode(bpe, PROSE[:1])[0]) < len(PROSE[0]) / 2


@pytest.mark.processes
def test_bpe_is_the_same_in_another_process_without_threads(bpe: PreTrainedTokenizerFast) -> None:
    code = f"from models.data.tokenizers import train_bpe; print(train_bpe({PROSE!r}, 300).backend_tokenizer.to_str())"
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "7", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == bpe.backend_tokenizer.to_str()


def test_special_strings_in_a_document_are_plain_text(bpe: PreTrainedTokenizerFast) -> None:
    for tokenizer in (BYTES, bpe):
        (ids,) = tokenizers.encode(tokenizer, [HOSTILE])
        assert not set(ids.tolist()) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(ids.tolist()) == HOSTILE
        assert set(tokenizer(HOSTILE)["input_ids"]) & set(tokenizer.all_special_ids), "the plain call does make special ids"


def test_special_strings_of_a_bert_are_plain_text() -> None:
    tokenizer = bert_like()
    (ids,) = tokenizers.encode(tokenizer, ["the [SEP] fox"])
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == ["the", "[", "sep", "]", "fox"]


def test_special_pieces_of_a_unigram_are_spelt_out() -> None:
    tokenizer = unigram()
    ids, plain = tokenizers.encode(tokenizer, ["the fox</s> and\x00 </s>the dog", "the fox and the dog"])
    assert tokenizer.eos_token_id in tokenizer("the fox</s>", split_special_tokens=True)["input_ids"], "the library alone does not"
    assert tokenizer.eos_token_id not in ids
    decoded = str(tokenizer.decode(ids.tolist()))
    assert "/s>" in decoded.replace(" ", "")
    assert decoded.endswith("the dog")
    assert plain.tolist() == tokenizer("the fox and the dog", add_special_tokens=False)["input_ids"]


def test_unknown_letters_of_a_document_stay_unknown() -> None:
    assert tokenizers.encode(bert_like(), ["the ¤"])[0].tolist() == [7, 1]


def test_many_documents_keep_their_order(bpe: PreTrainedTokenizerFast) -> None:
    texts = [f"document {n}" for n in range(3000)]
    assert sum(map(len, texts)) < AT_ONCE < sum(map(len, texts * 10))
    texts *= 10
    assert [bpe.decode(ids.tolist()) for ids in tokenizers.encode(bpe, texts)] == texts


def test_a_tokenizer_saved_with_truncation_and_padding_still_yields_whole_texts(tmp_path: Path) -> None:
    tokenizer = bert_like()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=8)
    tokenizers.save(tokenizer, tmp_path)
    assert tokenizers.encode(tokenizers.load_teacher(tmp_path), ["the fox " * 10])[0].tolist() == [7, 8] * 10


def test_surroundings_are_the_ids_that_the_tokenizer_adds() -> None:
    assert tokenizers.surroundings(bert_like()) == ([2], [3])
    assert tokenizers.surroundings(BYTES) == ([], [])
    assert tokenizers.surroundings(tokenizers.append_end(tokenizers.bytes_tokenizer())) == ([], [256])


def test_an_appended_end_survives_saving(tmp_path: Path) -> None:
    tokenizers.save(tokenizers.append_end(tokenizers.bytes_tokenizer()), tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("ab")["input_ids"] == [97, 98, 256]
    assert loaded("abcdef", truncation=True, max_length=3)["input_ids"] == [97, 98, 256]
    assert tokenizers.encode(loaded, ["ab"])[0].tolist() == [97, 98]


def test_end_is_eos_or_sep_and_padding_is_pad_or_end() -> None:
    assert tokenizers.special_ids(bert_like()) == (3, 0)
    unpadded = PreTrainedTokenizerFast(tokenizer_object=BYTES.backend_tokenizer, eos_token=END)
    assert tokenizers.special_ids(unpadded) == (256, 256)


def test_ids_are_stored_in_the_narrowest_type(bpe: PreTrainedTokenizerFast) -> None:
    assert (tokenizers.id_dtype(65_535), tokenizers.id_dtype(65_536)) == (np.uint16, np.uint32)
    assert {ids.dtype for ids in tokenizers.encode(bpe, ["a"]) + tokenizers.encode(BYTES, ["a"])} == {np.dtype(np.uint16)}


def test_a_teachers_tokenizer_comes_with_its_own_ids(tmp_path: Path) -> None:
    tokenizers.save(bert_like(), tmp_path)
    BertConfig(vocab_size=13).save_pretrained(tmp_path)
    loaded = tokenizers.load_teacher(tmp_path)
    assert tokenizers.encode(loaded, ["the fox"])[0].tolist() == [7, 8]


@pytest.mark.parametrize("config", [None, LlamaConfig(), BertConfig()], ids=["empty", "llama", "bert"])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, config: LlamaConfig | BertConfig | None) -> None:
    if config is not None:
        config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"teacher\.path.*a folder with a Hugging Face tokenizer.*tokenizer\.kind"):
        tokenizers.load_teacher(tmp_path)


def test_an_unreadable_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizers.save(BYTES, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{half")
    with pytest.raises(UserError, match=r"teacher\.path.*transformers said"):
        tokenizers.load_teacher(tmp_path)


def test_a_tokenizer_that_gives_one_id_to_two_words_is_refused(tmp_path: Path) -> None:
    tokenizers.save(bert_like(), tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["fox"] = content["model"]["vocab"]["the"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"whose tokenizer gives the id 7 to '(the|fox)' and to '(the|fox)'"):
        tokenizers.load_teacher(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizers.save(PreTrainedTokenizerFast(tokenizer_object=bert_like().backend_tokenizer, pad_token="[PAD]"), tmp_path)
    with pytest.raises(UserError, match=r"teacher\.path.*end-of-sequence.*eos_token"):
        tokenizers.load_teacher(tmp_path)


def test_the_hash_is_the_tokenizers_alone(tmp_path: Path, bpe: PreTrainedTokenizerFast) -> None:
    tokenizers.save(BYTES, tmp_path / "bytes")
    tokenizers.save(bpe, tmp_path / "bpe")
    before = tokenizers.tokenizer_hash(tmp_path / "bytes")
    (tmp_path / "bytes" / "model.safetensors").write_bytes(b"weights")
    assert tokenizers.tokenizer_hash(tmp_path / "bytes") == before
    assert tokenizers.tokenizer_hash(tmp_path / "bpe") != before
