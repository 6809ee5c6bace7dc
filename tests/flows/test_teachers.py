"""Every kind of teacher, data and tokenizer through the same steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

WORDS = ["quick", "brown", "foxes", "jump", "over", "lazy", "dogs", "while", "seven", "wizards", "box", "with", "jovial", "sphinxes"]
TRAINING = {"steps": 6, "batch_size": 4, "precision": "fp32", "validate_every": 3, "checkpoint_every": 3}


def from_checkpoint(tiny: Path, path: object, target: Path) -> Path:
    """The ladder `tiny` with another teacher."""
    ladder = yaml.safe_load(tiny.read_text())
    ladder["teacher"] = {"source": "checkpoint", "path": str(path)}
    ladder["stages"] = ladder["stages"][1:]
    ladder["stages"][0]["training"] = {"steps": 10}
    target.write_text(yaml.safe_dump(ladder))
    return target


@pytest.mark.slow
def test_a_stage_of_a_former_run_teaches(finished, tiny, undisturbed, tmp_path):
    one = undisturbed.json("show")["stages"][0]
    ladder = from_checkpoint(tiny, one["folder"], tmp_path / "from-folder.yaml")
    assert finished.json("plan", ladder)["teacher"]["action"] == "import"
    done = finished("run", ladder)
    assert f"teacher: importing {one['folder']}" in done.err
    shown = finished.json("show")
    assert shown["teacher"]["weights_sha256"] == one["weights_sha256"]
    assert shown["teacher"]["metrics"]["accuracy"] == pytest.approx(one["metrics"]["accuracy"])
    assert [stage["name"] for stage in shown["stages"]] == ["two", "three"]


@pytest.mark.slow
def test_a_registered_model_teaches(finished, tiny, tmp_path):
    from mlflow import MlflowClient

    shown = finished.json("show")
    client = MlflowClient(f"sqlite:///{finished.home}/mlflow/mlflow.db")
    run = client.get_run(shown["stages"][0]["mlflow_run_id"])
    client.create_registered_model("chosen")
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    version = client.create_model_version("chosen", model.artifact_location, run.info.run_id, model_id=model.model_id)
    finished("run", from_checkpoint(tiny, f"models:/chosen/{version.version}", tmp_path / "from-registry.yaml"))
    assert finished.json("show")["teacher"]["weights_sha256"] == shown["stages"][0]["weights_sha256"]


def shape(layers: int, **more) -> dict:
    return {"hidden_size": 16, "layers": layers, "heads": 2, "feed_forward": 32, **more}


def text_ladder(path: Path, workload: str, data: dict, tokenizer: dict, **more) -> Path:
    ladder = {
        "name": path.stem,
        "workload": workload,
        "data": {"source": "files", "sequence_length": 24, "valid_fraction": 0.2, "test_fraction": 0.2, **data},
        "tokenizer": tokenizer,
        "evaluation": {"examples": 8},
        "defaults": {"training": TRAINING},
        "teacher": {"source": "train", "shape": shape(3, **more), "training": TRAINING},
        "stages": [
            {"name": "large", "student": {"shape": shape(2, **more), "initialisation": "layers"}},
            {"name": "small", "student": {"shape": shape(1, **more)}},
        ],
    }
    path.write_text(yaml.safe_dump(ladder))
    return path


def sentence(number: int) -> str:
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 30))


@pytest.mark.slow
def test_classifying_text_from_a_table(cli, tmp_path):
    rows = "".join(f"{sentence(i)},{('bad', 'good')[i % 2]}\n" for i in range(60))
    (tmp_path / "reviews.csv").write_text("text,label\n" + rows)
    ladder = text_ladder(tmp_path / "reviews.yaml", "sequence-classification", {"paths": ["reviews.csv"]}, {"kind": "bytes"}, family="bert")
    cli("run", ladder)
    shown = cli.json("show")
    assert shown["status"] == "done"
    for model in (shown["teacher"], *shown["stages"]):
        assert {"accuracy", "macro_f1", "nll", "ece"} <= set(model["metrics"])
        assert Path(model["folder"], "tokenizer.json").is_file()
    loads_in_plain_transformers(shown["stages"][-1]["folder"], "AutoModelForSequenceClassification")


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [{"kind": "bytes"}, {"kind": "bpe", "vocabulary": 300}], ids=str)
def test_a_language_model_from_text_files(cli, tmp_path, tokenizer):
    for index in range(12):
        (tmp_path / f"{index}.txt").write_text("\n".join(sentence(index + line) for line in range(6)))
    cli("run", text_ladder(tmp_path / "letters.yaml", "causal-lm", {"paths": ["*.txt"]}, tokenizer))
    shown = cli.json("show")
    assert shown["status"] == "done"
    for model in (shown["teacher"], *shown["stages"]):
        assert {"bits_per_byte", "perplexity", "nll"} <= set(model["metrics"])
    loads_in_plain_transformers(shown["stages"][-1]["folder"], "AutoModelForCausalLM")


def loads_in_plain_transformers(folder: str, auto: str) -> None:
    import transformers

    model = getattr(transformers, auto).from_pretrained(folder, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    logits = model(**tokenizer("some text", return_tensors="pt")).logits
    assert bool(logits.isfinite().all())
    assert not list(Path(folder).glob("*.bin")) + list(Path(folder).glob("*.pt"))


@pytest.mark.slow
def test_a_teacher_with_a_tokenizer_of_its_own_below_which_bytes_are_learned(cli, tmp_path):
    """A whole run, its report, and an on-policy stage at the end."""
    import transformers

    from models.data import tokenizers

    texts = [sentence(i) for i in range(60)]
    own = tokenizers.train_bpe(texts, 320)
    size = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(vocab_size=tokenizers.id_count(own), max_position_embeddings=64, eos_token_id=0, **size)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "merges")
    tokenizers.save(own, tmp_path / "merges")
    (tmp_path / "texts.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts))
    ladder = yaml.safe_load(text_ladder(tmp_path / "other.yaml", "causal-lm", {"paths": ["texts.csv"]}, {"kind": "bytes"}).read_text())
    ladder["teacher"] = {"source": "checkpoint", "path": "merges", "allow_poor": True}
    ladder["defaults"]["objective"] = {"alignment": "bytes"}
    ladder["stages"][0]["student"].pop("initialisation")
    ladder["stages"][1] |= {"teachers": ["root"], "signals": {"source": "on-policy"}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(ladder))
    cli("run", tmp_path / "other.yaml")
    shown = cli.json("show")
    assert {"agreement_root", "kl_root", "bits_per_byte"} <= set(shown["stages"][1]["metrics"])
    report = Path(shown["folder"], "report.html").read_text()
    assert "its tokenizer is not that of its students" in report
