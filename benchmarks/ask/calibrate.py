"""Fit the weights of the extract reader on the development questions.

    python benchmarks/ask/calibrate.py FOLDER [--anew]

FOLDER is where the texts are, or are fetched to. Prints the constants of src/longspan/workflows/extract.py and, text by
text left out of the fit, what they achieve. Features are kept in build/ (`--anew` collects them again: ten minutes).

Quotes: a conditional logit, whose "right" alternatives are the quotes that touch the evidence and have an alternative
of every group of expected answers. Refusal: a logistic regression; facts whose best quote is right against absent
answers (where the best quote of a fact is wrong, nothing is lost by refusing, nor much won); its constant is set to
refuse 76 % of the absent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from check import normal
from quality import Place, has, touches
from texts import fetch

from longspan.corpus import Corpus
from longspan.llm import open_llm
from longspan.retrieval import Encoder, Index
from longspan.workflows import extract
from longspan.workflows.retrieve import CANDIDATES

HERE = Path(__file__).parent
QUESTIONS = ("development.jsonl", "development-plain.jsonl")
PENALTY = 0.01  # on squared weights of standardised features
REFUSED = 0.76  # of the absent


def collect(folder: Path, keep: Path) -> list[dict]:
    """Quotes and features of every question, with labels."""
    entries = [json.loads(line) for name in QUESTIONS for line in (HERE / name).read_text("utf-8").splitlines()]
    llm, encoder = open_llm("smollm2"), Encoder()
    made: dict[str, tuple[Index, Place]] = {}
    rows = pickle.loads(keep.read_bytes()) if keep.exists() else []  # our own file
    done = {row["id"] for row in rows}
    for number, entry in enumerate(entries, 1):
        if entry["kind"] not in ("fact", "absent") or entry["id"] in done:
            continue
        if entry["text"] not in made:
            corpus = Corpus.open([str(path) for path in fetch(entry["text"], folder)])
            index = Index.open(corpus, llm.count_batch, tokenizer=llm.tokenizer_name, encoder=encoder)
            made[entry["text"]] = index, Place(corpus)
        index, place = made[entry["text"]]
        question = entry["question"]
        hits = index.search(question, CANDIDATES)
        quotes, features = extract.candidates(question, hits, index)
        read = np.argsort(-(features @ extract.SEARCH.quote), kind="stable")[: extract.READ]
        features[read, -1] = asyncio.run(extract.gains(question, [quotes[i].context for i in read], llm))
        near = [extract.nearness(question, quotes[i], index) for i in read]
        places = [place.find(snippet) for snippet in entry["evidence"]]
        holds = [any(touches(_span(hit.passage, index), found) for found in places) for hit in hits]
        right = [
            any(touches(_span(quote, index), found) for found in places)
            and all(any(has(a, normal(f"{quote.lead} {quote.text}")) for a in group) for group in entry["answers"])
            for quote in quotes
        ]
        at = {hit.passage: n for n, hit in enumerate(hits)}
        rows.append(
            {
                "id": entry["id"],
                "text": entry["text"],
                "question": question,
                "quotes": [quote.text for quote in quotes],
                "absent": entry["kind"] == "absent",
                "features": features,
                "read": read,
                "nearness": dict(zip(read.tolist(), near, strict=True)),
                "right": np.array(right),
                "passage": np.array([at[quote.unit.passage] for quote in quotes]),
                "holds": np.array(holds),
            }
        )
        print(f"\r{number}/{len(entries)}", end="", file=sys.stderr, flush=True)
        if number % 10 == 0:
            keep.write_bytes(pickle.dumps(rows))
    keep.write_bytes(pickle.dumps(rows))
    print(file=sys.stderr)
    return rows


def _span(where, index: Index) -> dict:
    document = where.document if hasattr(where.document, "name") else index.corpus.document(where.document)
    return {"document": document.name, "start": where.start, "end": where.end}


def minimise(loss, size: int) -> np.ndarray:
    weights = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(weights)
        value.backward()
        return value

    optimiser.step(closure)
    return weights.detach().numpy()


def fit_quotes(rows: list[dict], *, model: bool) -> np.ndarray:
    """Weights of FEATURES; without `model` over all quotes, else over those that the model has read."""
    columns = list(range(len(extract.FEATURES) - (not model)))
    sets = []
    for row in rows:
        chosen = row["read"] if model else np.arange(len(row["features"]))
        if row["right"][chosen].any():
            sets.append((row["features"][chosen][:, columns], row["right"][chosen]))
    scale = np.concatenate([x for x, _ in sets]).std(0)
    tensors = [(torch.tensor(x / scale), torch.tensor(y)) for x, y in sets]

    def loss(weights: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for x, y in tensors:
            scores = x @ weights
            total = total + torch.logsumexp(scores, 0) - torch.logsumexp(scores[y], 0)
        return total / len(tensors) + PENALTY * (weights**2).sum()

    out = np.zeros(len(extract.FEATURES))
    out[columns] = minimise(loss, len(columns)) / scale
    return out


def ranked(row: dict, weights: np.ndarray, *, model: bool) -> np.ndarray:
    pool = row["read"] if model else np.arange(len(row["features"]))
    return pool[np.argsort(-(row["features"][pool] @ weights), kind="stable")]


class _Quote:
    """What `extract.evidence` looks at of a quote."""

    def __init__(self, passage: int, text: str) -> None:
        self.unit = self
        self.passage = passage
        self.text = text


def evidence(row: dict, weights: np.ndarray, *, model: bool) -> np.ndarray:
    order = ranked(row, weights, model=model)
    scores = (row["features"][order] @ weights).tolist()
    quotes = [_Quote(int(row["passage"][i]), row["quotes"][i]) for i in order]
    # Weights of other texts may put first what is not among the read.
    near = row["nearness"].get(int(order[0]), (0.0, 0.0))
    return extract.evidence(row["question"], quotes, scores, near)


def fit_stated(rows: list[dict], weights: np.ndarray, *, model: bool) -> np.ndarray:
    """Weights of EVIDENCE."""
    used = [row for row in rows if row["absent"] or row["right"][ranked(row, weights, model=model)[0]]]
    features = np.array([evidence(row, weights, model=model)[:-1] for row in used])
    labels = np.array([not row["absent"] for row in used])
    middle, scale = features.mean(0), features.std(0)
    inputs, sign = torch.tensor((features - middle) / scale), torch.tensor(np.where(labels, 1.0, -1.0))
    share = torch.tensor(np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()))

    def loss(weights: torch.Tensor) -> torch.Tensor:
        logits = inputs @ weights[:-1] + weights[-1]
        return (share * torch.nn.functional.softplus(-sign * logits)).sum() + 0.02 * (weights[:-1] ** 2).sum()

    fitted = minimise(loss, features.shape[1] + 1)[:-1] / scale
    absent = features[~labels] @ fitted
    return np.append(fitted, -np.quantile(absent, REFUSED))


def report(rows: list[dict], *, model: bool) -> None:
    """Each text with the weights that the other texts give."""
    totals = np.zeros(6)
    for text in sorted({row["text"] for row in rows}):
        others, these = [r for r in rows if r["text"] != text], [r for r in rows if r["text"] == text]
        weights = fit_quotes(others, model=model)
        stated = fit_stated(others, weights, model=model)
        for row in these:
            refused = evidence(row, weights, model=model) @ stated < 0
            if row["absent"]:
                totals += (0, 0, 0, 0, 1, refused)
                continue
            order = ranked(row, weights, model=model)
            three = list(dict.fromkeys(row["passage"][i] for i in order))[:3]
            totals += (
                1,
                row["right"][order[0]],
                row["holds"][three].any(),
                row["right"][order[0]] and not refused,
                0,
                0,
            )
    facts, right, cited, kept, absent, refused = totals
    print(
        f"texts left out: right {right / facts:.3f}, cited {cited / facts:.3f} of {facts:.0f} facts; with refusals "
        f"right {kept / facts:.3f}, refused {refused / absent:.3f} of {absent:.0f} absent"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--anew", action="store_true", help="collect the features again")
    arguments = parser.parse_args()
    keep = Path("build") / "calibrate.pickle"
    keep.parent.mkdir(exist_ok=True)
    if arguments.anew:
        keep.unlink(missing_ok=True)
    rows = collect(arguments.folder, keep)
    for name, model in (("SEARCH", False), ("MODEL", True)):
        weights = fit_quotes(rows, model=model)
        stated = fit_stated(rows, weights, model=model)
        print(
            f"{name} = Weights(np.array({[round(float(w), 2) for w in weights]}), "
            f"np.array({[round(float(w), 2) for w in stated]}))"
        )
        report(rows, model=model)


if __name__ == "__main__":
    main()
