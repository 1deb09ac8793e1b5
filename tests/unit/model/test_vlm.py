"""The whole model on one process: rows that must not see each other, a missing image, recomputed activations."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from mmtrain.model.rows import FUSION_KINDS, TEXT_KINDS, Layout, plan_rows
from mmtrain.records import Batch, Features
from tests.helpers import VOCAB_SIZE, made_batch, tiny_plan

if TYPE_CHECKING:
    from mmtrain.engine.build import Place
    from mmtrain.model.vlm import VisionLanguageModel

EVERY = Layout.of([*TEXT_KINDS, *FUSION_KINDS])
WITHOUT_IMAGE, WITHOUT_TEXT = 6, 10  # of the samples made by hand


def build(place: "Place", std: float = 0.2, **model: object) -> "VisionLanguageModel":
    """A tiny model; weights are large enough that what it sees shows in what it says."""
    from mmtrain.engine.build import build_model

    return build_model(tiny_plan(model={"init_std": std, **model}), place, VOCAB_SIZE)[0]


@pytest.fixture(scope="module")
def model(place: "Place") -> "VisionLanguageModel":
    return build(place)


def forward(model: "VisionLanguageModel", batch: Batch, layout: Layout = EVERY) -> Features:
    with torch.no_grad():
        return model(plan_rows(batch, layout))


def with_image(batch: Batch, sample: int) -> Batch:
    images = batch.images_BCHW.clone()
    images[sample] = 255 - images[sample]
    return replace(batch, images_BCHW=images)


def assert_same(one: Features, two: Features) -> None:
    for name in ("match_logits", "token_logits"):
        for kind, found in one[name].items():
            torch.testing.assert_close(found, two[name][kind], rtol=0, atol=0, msg=f"{name} {kind}")


def test_a_text_without_an_image_reads_nothing_of_the_pixels_in_its_place(model: "VisionLanguageModel") -> None:
    batch = made_batch(range(8))
    assert not batch.has_image_B[WITHOUT_IMAGE] and batch.has_text_B[WITHOUT_IMAGE]
    assert_same(forward(model, batch), forward(model, with_image(batch, WITHOUT_IMAGE)))


def test_a_text_without_an_image_reads_the_learned_token_instead(place: "Place") -> None:
    model, batch = build(place), made_batch(range(8))
    before = forward(model, batch)
    with torch.no_grad():
        model.fusion.entry.no_image.add_(1.0)
    after = forward(model, batch)
    changed_B = (before["match_logits"]["positive"] != after["match_logits"]["positive"]).any(dim=-1)
    assert changed_B.nonzero().flatten().tolist() == [WITHOUT_IMAGE]


def test_every_kind_of_row_reads_its_own_image(model: "VisionLanguageModel") -> None:
    batch = made_batch(range(8))
    before, after = forward(model, batch), forward(model, with_image(batch, 2))
    rows = plan_rows(batch, EVERY).picks
    for kind, picks in rows.items():
        changed_N = (before["token_logits"][kind] != after["token_logits"][kind]).any(dim=-1)
        assert changed_N.tolist() == (picks.row_N == 2).tolist(), kind


def test_a_causal_row_sees_no_later_token(model: "VisionLanguageModel") -> None:
    batch = made_batch(range(1, 2))
    length = int(batch.text_lengths_B)
    ids = batch.text_ids_BT.clone()
    ids[0, length - 2] = 5 + (ids[0, length - 2] - 4) % 50  # another word, last but one
    layout = Layout.of(["causal"])
    before, after = (forward(model, one, layout) for one in (batch, replace(batch, text_ids_BT=ids)))
    changed_N = (before["token_logits"]["causal"] != after["token_logits"]["causal"]).any(dim=-1)
    assert length > 3
    assert changed_N.tolist() == [position >= length - 2 for position in range(length - 1)]


def test_padding_changes_nothing(model: "VisionLanguageModel") -> None:
    batch = made_batch(range(4), max_text_length=8)
    wide = {"text_ids_BT": 0, "masked_ids_BT": 0, "masked_labels_BT": -100}
    padded = {name: torch.nn.functional.pad(getattr(batch, name), (0, 4), value=fill) for name, fill in wide.items()}
    one, two = forward(model, batch), forward(model, replace(batch, **padded))
    for name in ("match_logits", "token_logits"):
        for kind, found in one[name].items():
            torch.testing.assert_close(found, two[name][kind], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one["text_BE"], two["text_BE"])


def test_what_nobody_asked_for_is_absent(model: "VisionLanguageModel") -> None:
    batch = made_batch(range(4))
    contrast = {"image_BE", "text_BE", "temperature"}
    assert set(forward(model, batch, Layout.of(["clean"]))) == contrast
    assert set(forward(model, batch, Layout.of(["masked"]))) == {"token_logits", "token_labels"}
    assert set(forward(model, batch)) == contrast | {"token_logits", "token_labels", "match_logits", "has_negative_B"}


def test_recomputed_activations_give_the_same_features_and_gradients(place: "Place") -> None:
    found = []
    for recompute in ("none", "full"):
        model = build(place, recompute=recompute)
        features = model(plan_rows(made_batch(range(8)), EVERY))
        seen = [*features["match_logits"].values(), *features["token_logits"].values(), features["image_BE"][:, :3]]
        sum(part.square().mean() for part in seen).backward()
        found.append(({name: param.grad for name, param in model.named_parameters()}, seen))
    (gradients, seen), (again, seen_again) = found
    assert all(torch.equal(one, two) for one, two in zip(seen, seen_again, strict=True))
    for name, gradient in gradients.items():
        assert (gradient is None) == (again[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, again[name], rtol=1e-5, atol=1e-7, msg=name)
    assert sum(gradient is not None and bool(gradient.any()) for gradient in gradients.values()) > 100
