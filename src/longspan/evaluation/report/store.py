"""Rows as Parquet, aggregates as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longspan.errors import LongspanError
from longspan.evaluation.report.summary import by_dimension, pairs, summarise
from longspan.evaluation.rows import Row

SCHEMA = pa.schema(
    [
        ("spec", pa.string()),
        ("task", pa.string()),
        ("sample", pa.string()),
        ("epoch", pa.int32()),
        ("length", pa.int64()),
        ("tokens", pa.int64()),
        ("score", pa.float64()),
        ("failed", pa.bool_()),
        ("error", pa.string()),
        ("depth", pa.float64()),
        ("above_window", pa.bool_()),
        ("target", pa.list_(pa.string())),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("needles", pa.list_(pa.string())),
        ("excerpt", pa.string()),
        ("dimensions", pa.string()),  # JSON: every task has its own
        ("seconds", pa.float64()),
        ("prefill_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
        ("calls", pa.int32()),
        ("input_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cache_bytes", pa.int64()),
        ("peak_bytes", pa.int64()),
        ("cost", pa.float64()),
        ("log", pa.string()),
    ]
)


def save(rows: Sequence[Row], folder: Path) -> None:
    """Write samples.parquet and report.json; each appears whole or not at all."""
    records = [{**asdict(row), "dimensions": json.dumps(row.dimensions)} for row in rows]
    for record in records:
        for name in ("question", "answer", "excerpt", "error"):  # models may write half a surrogate pair
            record[name] = record[name].encode("utf-8", "replace").decode("utf-8")
    columns = {field.name: [record[field.name] for record in records] for field in SCHEMA}
    facts = {
        "cells": [_plain(asdict(cell)) for cell in summarise(rows)],
        "differences": [
            _plain({**asdict(pair), "difference": _plain(asdict(pair.difference))}) for pair in pairs(rows)
        ],
        "dimensions": [_plain(item) for item in by_dimension(rows)],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / ".samples.parquet.part"
        pq.write_table(pa.table(columns, schema=SCHEMA), part, compression="zstd")
        part.replace(folder / "samples.parquet")
        part = folder / ".report.json.part"
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(folder / "report.json")
    except OSError as error:
        raise LongspanError(f"Cannot write the report to {folder}: {error.strerror or error}.") from error


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what was not measured is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def load(folder: Path) -> list[Row]:
    """The rows that `save` wrote."""
    path = folder / "samples.parquet"
    try:
        records = pq.read_table(path).to_pylist()
        names = {field.name for field in fields(Row)}
        return [
            Row(**{**{name: record[name] for name in names}, "dimensions": json.loads(record["dimensions"])})
            for record in records
        ]
    except FileNotFoundError:
        raise LongspanError(f"{folder} holds no report: it has no samples.parquet.") from None
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise LongspanError(f"{path} is not the rows of an evaluation: {error}.") from error
