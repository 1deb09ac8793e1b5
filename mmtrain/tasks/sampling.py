"""Tokens drawn by chance instead of searched for, the same in every layout: a draw depends on its text and place alone.

Axes: R texts, V vocabulary.
"""

import zlib
from collections.abc import Sequence

import torch

from mmtrain.config.schema import TaskConfig


def kept(log_probs_RV: torch.Tensor, how: TaskConfig) -> torch.Tensor:
    """Log-probabilities at task.temperature, of the tokens that top_k and top_p leave; -inf elsewhere."""
    scaled_RV = (log_probs_RV / how.temperature).log_softmax(dim=-1)
    if how.top_k:
        least_R1 = scaled_RV.topk(min(how.top_k, scaled_RV.shape[-1]), dim=-1).values[:, -1:]
        scaled_RV = scaled_RV.masked_fill(scaled_RV < least_R1, -torch.inf).log_softmax(dim=-1)
    if how.top_p < 1:
        sorted_RV, order_RV = scaled_RV.sort(dim=-1, descending=True)
        shares_RV = sorted_RV.exp()
        # A token goes where those before it have the share already; the likeliest always stays.
        goes_RV = shares_RV.cumsum(dim=-1) - shares_RV >= how.top_p
        goes_RV[:, 0] = False
        goes_RV = torch.zeros_like(goes_RV).scatter(1, order_RV, goes_RV)
        scaled_RV = scaled_RV.masked_fill(goes_RV, -torch.inf)
    return scaled_RV


def with_chance(log_probs_RV: torch.Tensor, how: TaskConfig, seeds: Sequence[str]) -> torch.Tensor:
    """Scores whose largest is a token drawn in proportion to `kept` (Gumbel 1954): each row by its own seed."""
    scores_RV = kept(log_probs_RV, how)
    num_tokens = scores_RV.shape[-1]
    draws = [
        torch.rand(num_tokens, generator=torch.Generator().manual_seed(zlib.crc32(seed.encode()))) for seed in seeds
    ]
    uniform_RV = torch.stack(draws).to(scores_RV.device).clamp(1e-20, 1 - 1e-7)
    return scores_RV - (-uniform_RV.log()).log()
