"""Each objective against a plain reference, and the weighted sum of them all."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

from mmtrain.config.schema import ItcConfig, LossConfig
from mmtrain.model.rows import Layout, count_read, plan_rows
from mmtrain.objectives.caption import Captioning
from mmtrain.objectives.contract import Totals
from mmtrain.objectives.itm import ImageTextMatching
from mmtrain.objectives.mixture import Mixture
from mmtrain.objectives.mlm import MaskedLanguageModeling
from mmtrain.records import IGNORED_LABEL, Batch, Features
from tests.helpers import VOCAB_SIZE, made_batch, tiny_plan

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

TOTALS = Totals(pairs=5.0, matches=11.0, masked_tokens=7.0, next_tokens=13.0)
TOKEN_OBJECTIVES = {
    "masked": (MaskedLanguageModeling, TOTALS.masked_tokens),
    "causal": (Captioning, TOTALS.next_tokens),
}
OF_PARTS = ("loss_mlm", "loss_itm", "loss_lm")  # the contrast is over each block, so it is not a sum over parts


def made_features(num_samples: int = 8) -> Features:
    """What a model might have found of the samples made by hand."""
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    labels = torch.randint(0, VOCAB_SIZE, (2, 9), generator=generator)
    labels[:, 2::4] = IGNORED_LABEL
    return Features(
        image_BE=F.normalize(numbers(num_samples, 4), dim=-1),
        text_BE=F.normalize(numbers(num_samples, 4), dim=-1),
        temperature=torch.tensor([0.1]),
        has_negative_B=torch.arange(num_samples) % 3 != 0,
        match_logits={kind: numbers(num_samples, 2) for kind in ("positive", "negative_image", "negative_text")},
        token_logits={kind: numbers(9, VOCAB_SIZE) for kind in TOKEN_OBJECTIVES},
        token_labels=dict(zip(TOKEN_OBJECTIVES, labels, strict=True)),
    )


@pytest.mark.parametrize("kind", TOKEN_OBJECTIVES)
def test_a_token_loss_is_the_cross_entropy_of_the_labelled_tokens_over_the_total(place: "Place", kind: str) -> None:
    objective, total = TOKEN_OBJECTIVES[kind]
    features = made_features()
    logits, labels = features["token_logits"][kind], features["token_labels"][kind]
    wanted = F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum") / total
    (wanted_gradient,) = torch.autograd.grad(wanted, logits)
    loss = objective().loss(features, made_batch(range(8)), TOTALS)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)


def test_matching_is_the_cross_entropy_of_pairs_and_of_the_negatives_that_were_drawn(place: "Place") -> None:
    features, batch = made_features(), made_batch(range(8))
    rows, truths = [], []
    for sample in range(8):
        if batch.has_image_B[sample] and batch.has_text_B[sample]:
            rows.append(features["match_logits"]["positive"][sample])
            truths.append(1)
        if features["has_negative_B"][sample]:
            rows += [features["match_logits"][kind][sample] for kind in ("negative_image", "negative_text")]
            truths += [0, 0]
    wanted = F.cross_entropy(torch.stack(rows), torch.tensor(truths), reduction="sum") / TOTALS.matches
    torch.testing.assert_close(ImageTextMatching().loss(features, batch, TOTALS), wanted)
    assert len(truths) not in (8, 24)  # some sample lacks a part, some lack a negative


def test_nothing_counted_anywhere_is_a_loss_of_zero_and_not_a_division_by_it(place: "Place") -> None:
    nothing = replace(TOTALS, masked_tokens=0.0)
    features = made_features()
    features["token_labels"]["masked"] = torch.full((9,), IGNORED_LABEL)
    loss = MaskedLanguageModeling().loss(features, made_batch(range(8)), nothing)
    assert float(loss) == 0.0
    loss.backward()
    assert not features["token_logits"]["masked"].grad.any()


def test_the_total_is_the_weighted_sum_and_vlp_weighs_both_of_its_parts(place: "Place") -> None:
    mixture = Mixture(LossConfig(mlm=0.5, itc=2.0, vlp=3.0), ItcConfig(), place.groups.data)
    losses = mixture.losses(made_features(), made_batch(range(8)), TOTALS)
    assert set(losses) == {"loss", "loss_mlm", "loss_itc", "loss_itm", "loss_lm"}
    weighted = 0.5 * losses["loss_mlm"] + 2 * losses["loss_itc"] + 3 * (losses["loss_itm"] + losses["loss_lm"])
    torch.testing.assert_close(losses["loss"], weighted)
    as_one = Mixture(LossConfig(), ItcConfig(), place.groups.data).losses(made_features(), made_batch(range(8)), TOTALS)
    for name in ("loss_mlm", "loss_itc", "loss_itm", "loss_lm"):
        torch.testing.assert_close(losses[name], as_one[name])  # a part is logged without its weight


@pytest.mark.parametrize(
    ("without", "rows", "losses"),
    [
        ("mlm", {"clean", "positive", "causal", "negative_image", "negative_text"}, {"itc", "itm", "lm"}),
        ("itc", {"clean", "positive", "masked", "causal", "negative_image", "negative_text"}, {"mlm", "itm", "lm"}),
        ("vlp", {"clean", "masked"}, {"mlm", "itc"}),
    ],
)
def test_an_objective_of_weight_zero_asks_for_no_rows_and_has_no_loss(
    place: "Place", without: str, rows: set[str], losses: set[str]
) -> None:
    mixture = Mixture(LossConfig(**{without: 0.0}), ItcConfig(), place.groups.data)
    assert mixture.rows == rows
    found = mixture.losses(made_features(), made_batch(range(8)), TOTALS)
    assert set(found) == {"loss", *(f"loss_{name}" for name in losses)}


def part_of(batch: Batch, part: slice) -> Batch:
    """The samples of `part`, their texts no longer than the longest of them."""
    cut = {field.name: getattr(batch, field.name)[part] for field in fields(batch)}
    length = max(1, int(cut["text_lengths_B"].max()))
    texts = {name: cut[name][:, :length] for name in ("text_ids_BT", "masked_ids_BT", "masked_labels_BT")}
    return Batch(**{**cut, **texts})


def test_losses_of_uneven_micro_batches_add_up_to_the_mean_over_the_global_batch(place: "Place") -> None:
    from mmtrain.engine.build import build_model

    plan = tiny_plan(itm={"pool_size": 4})
    model, mixture = build_model(plan, place, VOCAB_SIZE)[0], Mixture(plan.loss, plan.itc, place.groups.data)
    whole, layout = made_batch(range(16)), Layout.of(mixture.rows)
    totals = Totals(**count_read(whole, plan.itm.pool_size))

    def losses_of(batch: Batch) -> dict[str, float]:
        with torch.no_grad():
            found = mixture.losses(model(plan_rows(batch, layout)), batch, totals)
        return {name: float(found[name]) for name in OF_PARTS}

    parts = [part_of(whole, part) for part in (slice(0, 4), slice(4, 8), slice(8, 16))]
    assert len({part.text_ids_BT.shape for part in parts}) > 1
    assert len({count_read(part, 4)["masked_tokens"] / len(part.places_B) for part in parts}) > 1
    summed = {name: sum(losses_of(part)[name] for part in parts) for name in OF_PARTS}
    assert summed == pytest.approx(losses_of(whole), rel=1e-5)


def test_smoothed_captioning_is_the_cross_entropy_against_smoothed_labels(place: "Place") -> None:
    features = made_features()
    logits, labels = features["token_logits"]["causal"], features["token_labels"]["causal"]
    sums = F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum", label_smoothing=0.2)
    (wanted_gradient,) = torch.autograd.grad(sums / TOTALS.next_tokens, logits)
    loss = Captioning(0.2).loss(features, made_batch(range(8)), TOTALS)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, sums.detach() / TOTALS.next_tokens, check_dtype=False)
    torch.testing.assert_close(gradient, wanted_gradient)
