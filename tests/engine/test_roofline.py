"""The roofline: work counted by hand, and a run on a tiny model."""

from __future__ import annotations

import copy
import dataclasses

import pytest

from longspan.engine import Engine
from longspan.engine.roofline import STEPS, Machine, Work, roofline
from longspan.models import LoadedModel


def test_work_is_what_the_model_has(llama: LoadedModel) -> None:
    """Three layers of 64 x 64 for queries and outputs, 64 x 32 for keys and values, 3 times 64 x 96, fp32."""
    work = Work.of(Engine(llama))
    matrices = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    assert (work.layers, work.heads, work.dim, work.matrices) == (3, 4, 16, matrices)
    assert work.weight_bytes == 4 * (matrices + 300 * 64)
    assert work.token_bytes == 3 * 2 * 2 * 16 * 4


def test_the_bounds_are_by_the_slower_unit() -> None:
    work = Work(layers=2, heads=3, dim=8, matrices=1000, weight_bytes=4000, token_bytes=10)
    pairs = 3 * 100 * 100 / 2
    by_products = Machine(products=1e3, exponentials=1e9, bytes=1e3)
    assert work.prefill(100, by_products) == pytest.approx(2 * 100 * 1000 / 1e3 + 2 * 4 * 8 * pairs / 1e3)
    by_exponentials = Machine(products=1e9, exponentials=1e2, bytes=1e3)
    assert work.prefill(100, by_exponentials) == pytest.approx(2 * 100 * 1000 / 1e9 + 2 * pairs / 1e2)
    assert work.step(100, by_products) == pytest.approx(5.0)


def test_a_tiny_model_is_measured(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longspan.engine.roofline.SECONDS", 0.01)
    machine, lines = roofline(Engine(llama), [32, 64])
    assert min(machine.products, machine.exponentials, machine.bytes) > 0
    assert [(line.what, line.tokens) for line in lines] == [
        ("prefill", 32), ("decode", 32), ("prefill", 64), ("decode", 64),
    ]  # fmt: skip
    assert all(line.measured > 0 and line.bound > 0 and line.share > 0 for line in lines)
    assert STEPS > 1


def test_work_is_the_same_after_weights_are_let_go_of(llama: LoadedModel) -> None:
    """`longspan bench` measures such an engine."""
    whole = Engine(dataclasses.replace(llama, model=copy.deepcopy(llama.model)), weights="int8")
    wanted = Work.of(whole)
    whole.release()
    assert wanted.matrices > 0 and Work.of(whole) == wanted
