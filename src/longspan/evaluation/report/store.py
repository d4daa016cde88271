"""The report on disk: every row in Parquet, every figure in JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from longspan import __version__
from longspan.errors import LongspanError
from longspan.evaluation.report.summary import figures, summarise
from longspan.evaluation.rows import Row
from longspan.surrogates import replace_surrogates

SAMPLES, FIGURES = "samples.parquet", "report.json"
TYPES: dict[Any, Any] = {
    str: pa.string(),
    int: pa.int64(),
    int | None: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
    bool: pa.bool_(),
    list[str]: pa.list_(pa.string()),
    dict[str, Any]: pa.string(),  # of JSON: each task has dimensions of its own
}
SCHEMA = pa.schema([(name, TYPES[kind]) for name, kind in get_type_hints(Row).items()])


def save(rows: Sequence[Row], folder: Path) -> None:
    """Write `samples.parquet` (a column for each field of Row, `dimensions` as JSON) and `report.json` (aggregates and
    paired differences). Each appears whole or not at all."""
    facts = {"longspan": __version__, "rows": len(rows), "confidence": 0.95, **figures(summarise(rows))}
    columns = [pa.array([_stored(getattr(row, name)) for row in rows], kind) for name, kind in _fields()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{SAMPLES}.part"
        pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), part, compression="zstd")
        part.replace(folder / SAMPLES)
        part = folder / f".{FIGURES}.part"
        text = json.dumps(_finite(facts), indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(replace_surrogates(text) + "\n", encoding="utf-8")
        part.replace(folder / FIGURES)
    except OSError as error:
        raise LongspanError(f"Cannot write the report to {folder}: {error.strerror or error}.") from error


def load(folder: Path) -> list[Row]:
    """The rows that `save` wrote; fields that an older longspan did not know have their defaults."""
    path = folder / SAMPLES
    if not path.is_file():
        raise LongspanError(f"{folder} holds no report: there is no {SAMPLES} in it. Give the folder of an evaluation.")
    try:
        records = pq.read_table(path).to_pylist()
        known = {field.name for field in dataclasses.fields(Row)}
        rows = []
        for record in records:
            values = {name: value for name, value in record.items() if name in known}
            values["dimensions"] = json.loads(values.get("dimensions") or "{}")
            rows.append(Row(**values))
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise LongspanError(f"{path} does not hold the rows of an evaluation: {error}.") from error
    return rows


def _fields() -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in SCHEMA]


def _stored(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [replace_surrogates(str(item)) for item in value]
    if isinstance(value, dict):
        return replace_surrogates(json.dumps(value, ensure_ascii=False, default=str))
    return value


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
