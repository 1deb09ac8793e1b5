"""A held-out split and a model whose answers are written down, for tests of how they are scored."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from mmtrain.data.heldout import Twin
from mmtrain.model.rows import FUSION_KINDS, TEXT_KINDS, Layout
from mmtrain.records import IGNORED_LABEL, Batch, Features
from tests.helpers import VOCAB_SIZE, made_batch

NUM_PAIRS, WIDTH, TOKENS_OF_EACH = 21, 3, 4
EVERY = Layout.of([*TEXT_KINDS, *FUSION_KINDS])
KINDS = ("color", "place")


class WrittenSplit:
    """The first samples made by hand, each second one with a twin; `captions_each` neighbours share an image.

    Every `repeats`-th caption is word for word the same as the others of its kind.
    """

    def __init__(self, captions_each: int = 1, repeats: int = NUM_PAIRS) -> None:
        self.captions_each, self.repeats = captions_each, repeats

    twins = tuple(Twin(f"twin {n}", KINDS[n % 4 // 2]) if n % 2 else None for n in range(NUM_PAIRS))

    def __len__(self) -> int:
        return NUM_PAIRS

    def batches(
        self, batch_size: int, *, dp: int = 1, dp_rank: int = 0, twins: bool = False, trim: bool = True
    ) -> Iterator[Batch]:
        """Cut as HeldOut cuts, the last batch padded with empty places."""
        for start in range(0, NUM_PAIRS, dp * batch_size):
            batch = made_batch(range(first := start + dp_rank * batch_size, first + batch_size))
            there = batch.places_B < NUM_PAIRS
            yield replace(
                batch,
                has_image_B=batch.has_image_B & there,
                has_text_B=batch.has_text_B & there,
                image_ids_B=torch.where(there, batch.places_B // self.captions_each, -1 - batch.places_B),
                caption_ids_B=batch.places_B % self.repeats,
            )


def written_answers() -> dict[str, torch.Tensor]:
    """What the model would say of each sample; similarities are few, so that ties occur."""
    generator = torch.Generator().manual_seed(11)
    size = NUM_PAIRS + 50  # beyond the split: what padding would read

    def few(*shape: int) -> torch.Tensor:
        return torch.randint(-1, 2, shape, generator=generator).float()

    image, text, twin = (few(size, WIDTH) for _ in range(3))
    text[::3] = image[::3] * 2
    return {
        "image": image,
        "text": text,
        "twin": twin,
        "has_negative": torch.rand(size, generator=generator) < 0.7,
        "match": torch.randn(4, size, 2, generator=generator),  # three kinds of rows, and the twins
        "tokens": torch.randn(2, size, TOKENS_OF_EACH, VOCAB_SIZE, generator=generator) * 2,
        "labels": torch.randint(0, VOCAB_SIZE, (2, size, TOKENS_OF_EACH), generator=generator),
    }


class WrittenPasses:
    """A model that reads its answers off the page; it knows a twin's batch by the shorter layout."""

    sees_features = True

    def __init__(self) -> None:
        self.said = written_answers()
        self.said["labels"][:, ::5, 1] = IGNORED_LABEL

    def infer(self, batches: Iterable[Batch], layout: Layout) -> Iterator[tuple[Batch, Features]]:
        """Each batch with its features."""
        for batch in batches:
            yield batch, self._features(batch, is_twin=layout != EVERY)

    def _features(self, batch: Batch, *, is_twin: bool) -> Features:
        said, at = self.said, batch.places_B
        matched = ("positive", "negative_image", "negative_text")
        whole_B = batch.has_image_B & batch.has_text_B
        labels = said["labels"][:, at].masked_fill(~whole_B[:, None], IGNORED_LABEL).flatten(1)
        logits = said["tokens"][:, at].flatten(1, 2)
        found = Features(image_BE=said["image"][at], text_BE=said["twin" if is_twin else "text"][at])
        if is_twin:
            return found | Features(match_logits={"positive": said["match"][3, at]})
        return found | Features(
            has_negative_B=said["has_negative"][at] & whole_B,
            match_logits={kind: said["match"][number, at] for number, kind in enumerate(matched)},
            token_logits=dict(zip(("masked", "causal"), logits, strict=True)),
            token_labels=dict(zip(("masked", "causal"), labels, strict=True)),
        )


def scored(place: Any, batch_size: int, captions_each: int = 1, repeats: int = NUM_PAIRS) -> Any:
    """The report of the written split and model on this rank."""
    from mmtrain.engine.evaluation import Evaluation

    split = WrittenSplit(captions_each, repeats)
    return Evaluation(split, EVERY, place.groups, place.device, batch_size, 5).run(WrittenPasses())


def scored_on_a_rank(batch_sizes: tuple[int, ...], captions_each: int = 1) -> list[Any]:
    """The reports of fresh ranks, at each batch size."""
    from mmtrain.engine.build import join
    from mmtrain.parallel.launch import read_launch
    from tests.helpers import tiny_plan

    place = join(tiny_plan(), read_launch())
    return [scored(place, size, captions_each) for size in batch_sizes]


def pairs() -> list[int]:
    """The samples of the split that have an image and a text."""
    batch = made_batch(range(NUM_PAIRS))
    return (batch.has_image_B & batch.has_text_B).nonzero().flatten().tolist()


def brute_force(captions_each: int = 1, repeats: int = NUM_PAIRS) -> dict[str, dict[str, float]]:
    """The scores by loops over samples and keys, one at a time."""
    said, whole = written_answers(), pairs()
    images = {n // captions_each: n for n in reversed(whole)}  # by image_id the first sample of each
    scores: dict[str, float] = {"num_pairs": len(whole)}
    if len(images) < len(whole):
        scores |= {"num_images": len(images), "num_captions": len(whole)}
    ranks: dict[str, list[int]] = {"image_to_text": [], "text_to_image": []}
    wordings = {image: {n % repeats for n in whole if n // captions_each == image} for image in images}
    for image, first in images.items():
        similar = {n: float(said["image"][first] @ said["text"][n]) for n in whole}
        best = max(value for n, value in similar.items() if n % repeats in wordings[image])
        others = [value for n, value in similar.items() if n % repeats not in wordings[image]]
        ranks["image_to_text"].append(1 + sum(value >= best for value in others))
    for n in whole:
        similar = {image: float(said["text"][n] @ said["image"][first]) for image, first in images.items()}
        best = max(value for image, value in similar.items() if n % repeats in wordings[image])
        others = [value for image, value in similar.items() if n % repeats not in wordings[image]]
        ranks["text_to_image"].append(1 + sum(value >= best for value in others))
    for name, found in ranks.items():
        scores |= {f"{name}_recall_at_{k}": sum(rank <= k for rank in found) / len(found) for k in (1, 5, 10)}
    right = [said["match"][0, n, 1] > said["match"][0, n, 0] for n in whole]
    negative = [n for n in whole if said["has_negative"][n]]
    right += [said["match"][kind, n, 0] > said["match"][kind, n, 1] for kind in (1, 2) for n in negative]
    scores["itm_accuracy"] = float(sum(right)) / len(right)
    read = [(n, token) for n in whole for token in range(TOKENS_OF_EACH) if n % 5 or token != 1]
    guessed = [said["tokens"][0, n, token].argmax() == said["labels"][0, n, token] for n, token in read]
    scores["masked_token_accuracy"] = float(sum(guessed)) / len(read)
    losses = [F.cross_entropy(said["tokens"][1, n, token], said["labels"][1, n, token]) for n, token in read]
    scores["lm_perplexity"] = float(torch.stack(losses).mean().exp())
    return {"heldout": scores, "twins": _twins(said, whole)}


def _twins(said: dict[str, torch.Tensor], whole: list[int]) -> dict[str, float]:
    kinds = {n: WrittenSplit.twins[n].kind for n in whole if WrittenSplit.twins[n]}
    margin = said["match"][..., 1] - said["match"][..., 0]
    won = {
        "itm_accuracy": {n: bool(margin[0, n] > margin[3, n]) for n in kinds},
        "itc_accuracy": {
            n: bool(said["image"][n] @ said["text"][n] > said["image"][n] @ said["twin"][n]) for n in kinds
        },
    }
    scores: dict[str, float] = {"num_pairs": len(kinds)}
    for name, by_sample in won.items():
        scores[name] = sum(by_sample.values()) / len(kinds)
        for kind in KINDS:
            of_kind = [by_sample[n] for n in kinds if kinds[n] == kind]
            scores[f"{name}_{kind}"] = sum(of_kind) / len(of_kind)
    return scores
