"""RULER's official prompts, as lm-eval packages them, asked of a longspan model by lm-eval's own runner.

    pip install 'lm-eval[hf,ruler]'
    python examples/lm_eval_ruler.py [MODEL] [--length 1024] [--limit 2]

A model that `longspan.load` gives is a transformers model, so lm-eval's `HFLM` takes it as it is. Of the thirteen tasks
the six below make all their data themselves and run without a network. The other seven download: niah_single_2,
niah_single_3, niah_multikey_1, niah_multivalue and niah_multiquery the essays (the data set baber/paul_graham_essays),
ruler_qa_squad and ruler_qa_hotpot their questions. lm-eval always makes 500 samples of a task; `--limit` says how many
are asked.
"""

from __future__ import annotations

import argparse
import os
import tempfile

import longspan

OFFLINE = ["niah_single_1", "niah_multikey_2", "niah_multikey_3", "ruler_vt", "ruler_cwe", "ruler_fwe"]


def scores(name: str, tasks: list[str], length: int, limit: int) -> dict[str, float]:
    """The score (0 to 1) of each task at `length` tokens, over its first `limit` samples."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = longspan.load(name)
    with tempfile.TemporaryDirectory() as folder:
        loaded.tokenizer.save_pretrained(folder)  # the tasks count with a tokenizer that they load by name
        metadata = {"tokenizer": folder, "max_seq_lengths": [length]}
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1, max_length=loaded.window),
            tasks=tasks,
            limit=limit,
            apply_chat_template=True,
            task_manager=TaskManager(metadata=metadata),
            bootstrap_iters=0,
        )
    return {task: found[f"{length},none"] for task, found in results["results"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--limit", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for task, score in scores(arguments.model, OFFLINE, arguments.length, arguments.limit).items():
        print(f"{task:18} {score:.2f}")


if __name__ == "__main__":
    main()
