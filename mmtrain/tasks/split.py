"""Texts about the whole held-out split: each data-parallel rank writes its part, and all learn all of them."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mmtrain.config.schema import RunConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place, trims_texts
from mmtrain.parallel.collectives import gathered_lists, told_by_last
from mmtrain.records import Batch

Text = TypeVar("Text")  # words, or tokens


def texts_of_split(
    plan: RunConfig, place: Place, heldout: HeldOut, write: Callable[[Iterable[Batch]], Iterator[list[Text]]]
) -> tuple[list[Text], list[bool]]:
    """What `write` makes of each held-out sample, and whether the sample has an image and a text; alike on every rank.

    `write` takes batches and gives the texts of each, on the last pipeline stage; elsewhere empty lists.
    """
    groups, masks = place.groups, []

    def batches() -> Iterator[Batch]:
        size, coord = plan.train.micro_batch_size, groups.coord
        for batch in heldout.batches(size, dp=groups.grid.dp, dp_rank=coord.dp, trim=trims_texts(plan)):
            masks.append((batch.has_image_B & batch.has_text_B).tolist())
            yield batch

    texts: list[Text] = []
    for own in write(batches()):
        texts += gathered_lists(own, groups.data)
    is_whole = [one for mask in masks for one in gathered_lists(mask, groups.data)]
    texts, is_whole = told_by_last((texts, is_whole), groups.pipe)
    return texts[: len(heldout)], is_whole[: len(heldout)]
