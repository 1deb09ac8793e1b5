"""Image-text contrast: symmetric InfoNCE over the pairs of all data-parallel ranks together.

Two modes. Over a micro-batch, the keys are gathered with their gradient. Over the whole global batch, a first pass
without gradients brings the features of every micro-batch; the loss and its gradient with respect to each feature are
computed here, by blocks of queries, and the training pass feeds them back, so the result is that of one process with
one micro-batch (after Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup").

Axes: B samples of this rank, Q queries of a block, N samples of all ranks, E shared embedding.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F

from mmtrain.objectives.contract import Totals, share
from mmtrain.parallel.collectives import gather_rows, gather_rows_with_grad, sum_over
from mmtrain.records import Batch, Features

QUERIES_PER_BLOCK = 1024  # rows of the similarity matrix that exist at once


class MicroBatchContrast:
    """Pull each image to its caption and push it from every other (van den Oord et al. 2018; Radford et al. 2021)."""

    name = "itc"
    rows = frozenset({"clean"})

    def __init__(self, data_group: dist.ProcessGroup) -> None:
        self.group = data_group

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        image_BE, text_BE = features["image_BE"], features["text_BE"]
        pair_B = batch.has_image_B & batch.has_text_B
        pair_N = gather_rows(pair_B, self.group)
        own_B = torch.arange(pair_B.shape[0], device=pair_B.device) + dist.get_rank(self.group) * pair_B.shape[0]
        both_ways = (
            (image_BE, gather_rows_with_grad(text_BE, self.group)),
            (text_BE, gather_rows_with_grad(image_BE, self.group)),
        )
        losses_B = sum(
            contrast(query_BE, key_NE, features["temperature"], own_B, pair_N) for query_BE, key_NE in both_ways
        )
        return share((losses_B * pair_B).sum() / 2, totals.pairs)


def contrast(
    query_BE: torch.Tensor, key_NE: torch.Tensor, temperature: torch.Tensor, own_B: torch.Tensor, legal_N: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy [B] of finding the key `own_B` among the legal keys by similarity / temperature."""
    logits_BN = query_BE @ key_NE.t() / temperature
    # A query's own key always stays, so that a row without any legal key is finite; its caller weighs it with 0.
    is_own_BN = torch.arange(key_NE.shape[0], device=own_B.device) == own_B[:, None]
    return F.cross_entropy(logits_BN.masked_fill(~(legal_N | is_own_BN), -torch.inf), own_B, reduction="none")


@dataclass(frozen=True)
class Pull:
    """What the whole batch asks of one micro-batch's features, and its part of the loss."""

    share: torch.Tensor  # of the mean loss
    image_BE: torch.Tensor  # gradient of the mean loss with respect to each feature
    text_BE: torch.Tensor
    temperature: torch.Tensor  # this micro-batch's part of the gradient with respect to the temperature


class GlobalBatchContrast:
    """The same loss, every pair told from all others of the global batch, exactly."""

    name = "itc"
    rows = frozenset({"clean"})

    def __init__(self, data_group: dist.ProcessGroup) -> None:
        self.group = data_group
        self._pulls: deque[Pull] = deque()

    def take_first_pass(self, found: Sequence[tuple[Batch, Features]], totals: Totals) -> None:
        """Features of all this rank's micro-batches, in the order in which the training pass will come to them."""
        image_BE, text_BE = (torch.cat([features[name] for _, features in found]) for name in ("image_BE", "text_BE"))
        pair_B = torch.cat([batch.has_image_B & batch.has_text_B for batch, _ in found])
        temperature = found[0][1]["temperature"]
        losses_B, image_pull_BE, text_pull_BE, temperature_pull = whole_batch_contrast(
            image_BE, text_BE, temperature, pair_B, self.group
        )
        sizes = [len(batch.places_B) for batch, _ in found]
        scale = max(totals.pairs, 1.0)
        parts = zip(*(part.split(sizes) for part in (losses_B, image_pull_BE, text_pull_BE)), strict=True)
        self._pulls = deque(
            Pull(losses.sum() / scale, image / scale, text / scale, temperature_pull / scale / len(sizes))
            for losses, image, text in parts
        )

    def loss(self, features: Features, batch: Batch, totals: Totals) -> torch.Tensor:
        pull = self._pulls.popleft()
        pulled = (
            (features["image_BE"] * pull.image_BE).sum()
            + (features["text_BE"] * pull.text_BE).sum()
            + (features["temperature"] * pull.temperature).sum()
        )
        return pull.share + pulled - pulled.detach()  # the loss's value, with the whole batch's gradient


def whole_batch_contrast(
    image_BE: torch.Tensor,
    text_BE: torch.Tensor,
    temperature: torch.Tensor,
    pair_B: torch.Tensor,
    group: dist.ProcessGroup,
    queries_per_block: int = QUERIES_PER_BLOCK,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses [B] of this rank's pairs (both ways, halved), and the gradient of the sum over all ranks' pairs.

    The gradient is with respect to this rank's image and text features [B, E], and to the temperature [1] as far as it
    comes from this rank's queries. Memory grows with the samples, never with their square: at most `queries_per_block`
    rows of the similarity matrix exist at once. Every rank of `group` brings the same number of samples.
    """
    keys = {"image": gather_rows(image_BE, group), "text": gather_rows(text_BE, group)}
    own = {"image": image_BE, "text": text_BE}
    pair_N = gather_rows(pair_B, group)
    first = dist.get_rank(group) * pair_B.shape[0]
    pulls = {name: torch.zeros_like(key_NE) for name, key_NE in keys.items()}
    losses_B, temperature_pull = torch.zeros_like(image_BE[:, 0]), torch.zeros_like(temperature)
    for query, key in (("image", "text"), ("text", "image")):
        for start in range(0, pair_B.shape[0], queries_per_block):
            block = slice(start, start + queries_per_block)
            loss_Q, query_pull_QE, key_pull_NE, pull = _block(
                own[query][block], keys[key], temperature, pair_B[block], pair_N, first + start
            )
            losses_B[block] += loss_Q
            pulls[query][first + start : first + start + loss_Q.shape[0]] += query_pull_QE
            pulls[key] += key_pull_NE
            temperature_pull += pull
    mine = slice(first, first + pair_B.shape[0])
    return losses_B, sum_over(pulls["image"], group)[mine], sum_over(pulls["text"], group)[mine], temperature_pull


def _block(
    query_QE: torch.Tensor,
    key_NE: torch.Tensor,
    temperature: torch.Tensor,
    pair_Q: torch.Tensor,
    pair_N: torch.Tensor,
    first: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One way's losses [Q] of a block of queries, and the gradients of their sum: queries, keys, temperature."""
    own_Q = torch.arange(query_QE.shape[0], device=query_QE.device) + first
    similar_QN = query_QE @ key_NE.t()
    logits_QN = (similar_QN / temperature).masked_fill(~pair_N, -torch.inf)
    logits_QN[~pair_Q] = 0.0  # such rows count for nothing; zeros keep them finite
    found_QN = logits_QN.softmax(dim=-1)
    losses_Q = -logits_QN.log_softmax(dim=-1).gather(1, own_Q[:, None])[:, 0]
    found_QN[torch.arange(own_Q.shape[0], device=own_Q.device), own_Q] -= 1.0
    pull_QN = found_QN * (pair_Q[:, None] / 2)
    temperature_pull = -(pull_QN * similar_QN).sum() / temperature**2
    pull_QN /= temperature
    return losses_Q * pair_Q / 2, pull_QN @ key_NE, pull_QN.t() @ query_QE, temperature_pull
