"""RULER's official prompts through lm-eval: made where lm-eval is there, a sentence where it is not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from longspan.errors import LongspanError, UsageError
from longspan.evaluation.tasks.ruler_lm_eval import MAKERS, ruler_lm_eval

needs_lm_eval = pytest.mark.skipif(
    find_spec("lm_eval") is None or find_spec("wonderwords") is None, reason="lm-eval[ruler] is not installed"
)


@needs_lm_eval
@pytest.mark.parametrize("name", MAKERS)
def test_the_prompts_have_their_length_and_their_answers(name: str) -> None:
    made = ruler_lm_eval(lengths="1k,2k", samples=2, names=name, tokenizer="smollm2")
    samples = list(made.dataset)
    assert [sample.metadata["length"] for sample in samples if sample.metadata] == [1024, 1024, 2048, 2048]
    for sample in samples:
        assert sample.metadata is not None
        assert 0.5 * sample.metadata["length"] < sample.metadata["tokens"] <= 1.1 * sample.metadata["length"]
        assert all(target in str(sample.input) for target in sample.target)
    again = list(ruler_lm_eval(lengths="1k,2k", samples=2, names=name, tokenizer="smollm2").dataset)
    if name in ("vt", "niah_single_1", "niah_multikey_2"):  # others draw from generators that no seed reaches
        assert [sample.input for sample in again] == [sample.input for sample in samples]


def test_without_lm_eval_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.ruler.vt_utils", None)
    with pytest.raises(LongspanError, match="pip install"):
        ruler_lm_eval(samples=1, names="vt", tokenizer="smollm2")


def test_names_that_need_downloads_are_refused() -> None:
    with pytest.raises(UsageError, match="niah_single_1"):
        ruler_lm_eval(names="niah_single_2")
