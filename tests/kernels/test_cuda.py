"""What can be known of the CUDA path without a GPU: FlexAttention's masks and scores, run plainly on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask, flex_attention

from longspan.kernels import BlockLayout, cuda, reference

CASES: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "both ways": {"causal": False},
    "window": {"causal": True, "window": 20},
    "window both ways": {"causal": False, "window": 20},
    "ragged": {"causal": True, "starts": torch.tensor([3, 0]), "lengths": torch.tensor([100, 77])},
    "layout": {"causal": True, "layout": BlockLayout(torch.tensor([[[[True, False], [True, True]]]]))},
}


@pytest.mark.parametrize("name", CASES)
def test_masks(name: str) -> None:
    case = {"window": None, "starts": None, "lengths": None, "layout": None, **CASES[name]}
    q, k = torch.zeros(2, 4, 70, 16), torch.zeros(2, 2, 100, 16)
    ours = create_mask(cuda.mask_of(q, k, **case), 2, 4, 70, 100, device="cpu")
    layout = case.pop("layout")
    want = reference.visible(torch.arange(70), 2, 70, 100, **case)[:, None]
    if layout is not None:
        want = want & layout.expand(torch.arange(70), 100)
    assert torch.equal(ours, want.expand(2, 4, -1, -1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_scores_and_sinks(monkeypatch: pytest.MonkeyPatch, softcap: float | None) -> None:
    monkeypatch.setattr(cuda, "_compiled_flex", lambda: flex_attention)
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 128, 16), torch.randn(1, 2, 128, 16), torch.randn(1, 2, 128, 16)
    options: dict[str, Any] = {"scale": 0.5, "causal": True, "window": 50, "softcap": softcap, "sinks": torch.randn(4)}
    out, lse = cuda.attention(q, k, v, **options)
    want, want_lse = reference.attention(q, k, v, **options)
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lse, want_lse, rtol=1e-4, atol=1e-4)
