"""Answer requests with a recorded model, in MLflow's `pyfunc` form.

This file is copied into the folder of every model that is logged in MLflow, as `predict.py`, and MLflow runs it from there
(https://mlflow.org/docs/latest/ml/model/models-from-code): it needs mlflow, torch and transformers, and nothing of Ladder. Weights are
read as safetensors, no code of the model is run, and nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from safetensors.torch import load_file

AT_ONCE = 32  # rows of a forward pass


class RecordedModel(PythonModel):
    """A model with its tokenizer or image processor."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the folder `model`; `workload` of the model's configuration says how it answers."""
        folder, safe = context.artifacts["model"], {"local_files_only": True, "trust_remote_code": False}
        self.workload = (context.model_config or {})["workload"]
        auto = {
            "causal-lm": transformers.AutoModelForCausalLM,
            "sequence-classification": transformers.AutoModelForSequenceClassification,
            "image-classification": transformers.AutoModelForImageClassification,
            "image-text": transformers.AutoModelForImageTextToText,
            "embedding": transformers.AutoModel,
            "image-text-embedding": transformers.AutoModel,
        }[self.workload]
        self.model: Any = auto.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **safe).eval()
        has_tokenizer = (Path(folder) / "tokenizer_config.json").is_file()
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **safe) if has_tokenizer else None
        images = self.workload == "image-classification"
        reads = transformers.AutoImageProcessor if images else transformers.AutoProcessor if "image" in self.workload else None
        self.processor: Any = reads.from_pretrained(folder, backend="pil", **safe) if reads else None
        self.pooling: dict[str, Any] = (context.model_config or {}).get("pooling") or {}
        dense = sorted(Path(folder).glob("*_Dense/model.safetensors"))
        self.dense = load_file(dense[0]) if self.pooling and dense else None

    def predict(self, model_input: list[str], params: dict[str, Any] | None = None) -> list[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer each row.

        Args:
            model_input: Prompts, texts, or image files in base64; of a model of pictures with texts JSON objects of `image`, a file in
                base64, and `prompt`; of one that embeds both of `image` or `text`.
            params: For a language model `max_new_tokens`, `temperature` (0: the likeliest token), `top_p`, `seed`; for a classifier
                `top_k`.

        Returns:
            Of a language model the continuations, without the prompts. Of a classifier for each row `label`, its probability `score`,
            and `probabilities` of the `top_k` likeliest classes. Of a model of embeddings one, a list of numbers, for each row.

        Raises:
            MlflowException: A row or a parameter cannot be used (HTTP 400).
        """
        if not model_input:
            raise _refused("no rows: send at least one")
        settings = params or {}
        with torch.no_grad():
            if self.workload == "causal-lm":
                return [self._continued(self._prompt(row), place, settings) for place, row in enumerate(model_input)]
            if self.workload == "image-text":
                return [self._continued(self._question(row, place), place, settings) for place, row in enumerate(model_input)]
            if self.workload == "image-text-embedding":
                return [self._shared(row, place) for place, row in enumerate(model_input)]
            answers = []
            for start in range(0, len(model_input), AT_ONCE):
                rows = model_input[start : start + AT_ONCE]
                if self.workload == "embedding":
                    answers += self._embeddings(self._texts(rows))
                    continue
                inputs = self._pictures(rows, start) if self.processor is not None else self._texts(rows)
                answers += self._classes(self.model(**inputs).logits.float().softmax(-1), int(settings.get("top_k", 5)))
            return answers

    def _prompt(self, row: str) -> dict[str, Any]:
        return {"input_ids": self.tokenizer(row, return_tensors="pt")["input_ids"]}

    def _question(self, row: str, place: int) -> dict[str, Any]:
        try:
            asked = json.loads(row)
            image, prompt = str(asked["image"]), str(asked["prompt"])
        except (ValueError, KeyError, TypeError):
            raise _refused(f"row {place} is no JSON object of image and prompt") from None
        parts = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = f"{self.processor.image_token}{prompt}"
        if self.processor.chat_template is not None:
            text = self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        own = {"add_special_tokens": False} if self.processor.chat_template is not None else {}  # which the template has written
        inputs = self.processor(text=[text], images=[self._picture(image, place, "RGB")], return_tensors="pt", **own)
        return {name: value for name, value in inputs.items() if name != "attention_mask"}

    def _shared(self, row: str, place: int) -> list[float]:
        """The embedding of a picture or of a text; the model wants both, and neither changes the other's."""
        from PIL import Image

        try:
            given = json.loads(row)
            text, image = given.get("text"), given.get("image")
        except (ValueError, AttributeError):
            text = image = None
        if (text is None) == (image is None):
            raise _refused(f"row {place} is no JSON object of image or text")
        picture = Image.new("RGB", (64, 64)) if image is None else self._picture(str(image), place, "RGB")
        inputs = self.processor(text=["a" if text is None else str(text)], images=[picture], truncation=True, return_tensors="pt")
        made = self.model(**inputs)
        return (made.image_embeds if text is None else made.text_embeds)[0].tolist()

    def _continued(self, inputs: dict[str, Any], place: int, settings: dict[str, Any]) -> str:
        most, temperature = int(settings.get("max_new_tokens", 32)), float(settings.get("temperature", 0.0))
        ids = inputs["input_ids"]
        config = getattr(self.model.config, "text_config", self.model.config)
        positions = getattr(config, "max_position_embeddings", None)
        if ids.shape[1] == 0:
            raise _refused(f"row {place} has no tokens: send a prompt")
        if most < 1 or (positions is not None and most > positions):
            raise _refused(f"max_new_tokens: got {most}; allowed: from 1" + (f" to {positions}" if positions else ""))
        if positions is not None and ids.shape[1] >= positions:
            raise _refused(f"row {place} has {ids.shape[1]} tokens; allowed: at most {positions - 1}, which leaves room for an answer")
        if temperature < 0:
            raise _refused(f"temperature: got {temperature}; allowed: 0 or more")
        torch.manual_seed(int(settings.get("seed", 0)))
        chosen = {"temperature": temperature, "top_p": float(settings.get("top_p", 1.0)), "top_k": 0} if temperature else {}
        pad = self.model.generation_config.pad_token_id
        whole = self.model.generate(
            **inputs,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most if positions is None else min(most, positions - ids.shape[1]),
            do_sample=bool(temperature),
            pad_token_id=self.model.generation_config.eos_token_id if pad is None else pad,
            **chosen,
        )
        return self.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)

    def _texts(self, rows: list[str]) -> Any:
        return self.tokenizer(rows, padding=True, truncation=True, return_tensors="pt")

    def _embeddings(self, inputs: Any) -> list[list[float]]:
        """Pooled, projected and normalised as the folder's modules say; positions of a text bear a 1 in the mask."""
        mask = inputs["attention_mask"]
        states = self.model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        mode, weights, rows = self.pooling["mode"], mask[..., None].to(states.dtype), torch.arange(len(mask))
        if mode in ("cls", "lasttoken"):
            made = states[rows, mask.argmax(1) if mode == "cls" else mask.shape[1] - 1 - mask.flip(1).argmax(1)]
        elif mode == "max":
            made = states.masked_fill(weights == 0, -torch.inf).max(1).values
        else:
            count = weights.sum(1).clamp(min=1e-9)
            made = (states * weights).sum(1) / (count if mode == "mean" else count.sqrt())
        if self.dense is not None:
            made = torch.nn.functional.linear(made, self.dense["linear.weight"].float(), self.dense.get("linear.bias"))
            made = made.tanh() if self.pooling["activation"] == "tanh" else made
        return (torch.nn.functional.normalize(made, dim=-1) if self.pooling["normalize"] else made).tolist()

    def _pictures(self, rows: list[str], start: int) -> Any:
        mode = "L" if getattr(self.model.config, "num_channels", 3) == 1 else "RGB"
        pictures = [self._picture(row, place, mode) for place, row in enumerate(rows, start)]
        if mode == "L":  # without an axis for it, a processor takes the height for the channels
            import numpy as np

            return self.processor([np.asarray(picture)[None] for picture in pictures], return_tensors="pt")
        return self.processor(pictures, return_tensors="pt")

    @staticmethod
    def _picture(row: str, place: int, mode: str) -> Any:
        from PIL import Image

        try:
            return Image.open(io.BytesIO(base64.b64decode(row, validate=True))).convert(mode)
        except (binascii.Error, OSError, ValueError, Image.DecompressionBombError):
            raise _refused(f"row {place} is no image file in base64") from None

    def _classes(self, probabilities: torch.Tensor, most: int) -> list[dict[str, Any]]:
        names, found = self.model.config.id2label, []
        for row in probabilities:
            best = row.topk(min(max(most, 1), len(row)))
            shown = {names[int(index)]: float(value) for index, value in zip(best.indices, best.values, strict=True)}
            label = next(iter(shown))
            found.append({"label": label, "score": shown[label], "probabilities": shown})
        return found


def _refused(reason: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(reason)


set_model(RecordedModel())
