"""How the next token is chosen from the model's scores."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.engine.sampling import Sampling


class Sampler:
    """Chooses tokens for one request. It owns its random numbers, so what else is in the batch changes nothing."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self.generator = torch.Generator(device=device)
        if sampling.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(sampling.seed)

    def choose(self, logits: Tensor, allowed: Tensor | None = None) -> tuple[int, float]:
        """From the raw scores `[vocabulary]` and what is allowed `[vocabulary]` (bool): a token id, and its log
        probability (nats) in the model's own distribution, before temperature, limits and `allowed`."""
        raw = logits.float()
        scores = raw if allowed is None else raw.masked_fill(~allowed, -torch.inf)
        if self.sampling.temperature <= 0:
            token = int(scores.argmax())
        else:
            token = int(torch.multinomial(limited(scores, self.sampling), 1, generator=self.generator))
        return token, float(raw[token] - raw.logsumexp(dim=0))


def limited(scores: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities `[vocabulary]` after temperature and then top-k, top-p and min-p, each over what is left."""
    scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.numel():
        kth = scores.topk(sampling.top_k).values[-1]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = scores.softmax(dim=0).sort(descending=True)
        beyond = ordered.cumsum(dim=0) - ordered >= sampling.top_p  # the likeliest token is never beyond
        beyond[0] = False
        scores = scores.index_fill(0, order[beyond], -torch.inf)
    probabilities = scores.softmax(dim=0)
    if sampling.min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < sampling.min_p * probabilities.max(), 0.0)
    return probabilities
