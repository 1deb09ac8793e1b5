"""Generation: what is kept from token to token changes nothing but the time; every way of writing is transformers'."""

from typing import Any

import pytest
import torch

from mmtrain.hf import VLBertForImageCaptioning
from mmtrain.hf.generating import generation_config_of
from tests.unit.hf.built import built, config_of, pixels, texts

NUM_IMAGES = 200
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1, "do_sample": False},
    "beams": {"num_beams": 4, "do_sample": False},
    "beams that favour length": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
}


@pytest.fixture(scope="module", params=["looks both ways", "causal tower"])
def model(request: pytest.FixtureRequest) -> VLBertForImageCaptioning:
    causal = {"text_attention": "causal", "vision_entry_norm": True}
    model = built(VLBertForImageCaptioning, **(causal if request.param == "causal tower" else {"text_hidden_size": 24}))
    model.generation_config = generation_config_of(model.config, range(5))
    return model


@pytest.mark.parametrize("way", WAYS)
def test_the_cache_changes_no_token_of_200_images(model: VLBertForImageCaptioning, way: str) -> None:
    images = pixels(NUM_IMAGES)
    kept, again = (model.generate(images, max_length=14, use_cache=cache, **WAYS[way]) for cache in (True, False))
    assert torch.equal(kept, again)
    assert len({tuple(row) for row in kept.tolist()}) > NUM_IMAGES / 10, "the images hardly show in the captions"


def test_sampling_is_the_same_from_the_same_seed_with_and_without_the_cache(model: VLBertForImageCaptioning) -> None:
    found = []
    for cache in (True, False, True):
        torch.manual_seed(7)
        found.append(model.generate(pixels(40), max_length=12, do_sample=True, top_p=0.9, use_cache=cache))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.manual_seed(8)
    assert not torch.equal(found[0], model.generate(pixels(40), max_length=12, do_sample=True, top_p=0.9))


def test_what_means_nothing_is_never_written(model: VLBertForImageCaptioning) -> None:
    torch.manual_seed(0)
    ids = model.generate(pixels(60), max_length=14, do_sample=True, temperature=3.0)[:, 1:]
    assert int(ids.max()) < model.config.num_pieces
    body = ids[(ids != model.config.pad_token_id) & (ids != model.config.eos_token_id)]
    assert int(body.min()) >= 5


def test_each_image_of_a_batch_gets_what_it_gets_alone(model: VLBertForImageCaptioning) -> None:
    images = pixels(12)
    together = model.generate(images, max_length=10, num_beams=3, do_sample=False)
    for number in range(0, 12, 5):
        alone = model.generate(images[number : number + 1], max_length=10, num_beams=3, do_sample=False)[0]
        assert together[number, : len(alone)].tolist() == alone.tolist()


def test_beginnings_of_several_lengths_are_written_on_as_each_alone(model: VLBertForImageCaptioning) -> None:
    images = pixels(3)
    beginnings = [[2, 9, 8, 7], [2, 30], [2, 11, 12]]
    width = max(map(len, beginnings))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in beginnings])
    mask = (ids != 0).long()
    together = model.generate(images, input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    for number, row in enumerate(beginnings):
        alone = model.generate(
            images[number : number + 1], input_ids=torch.tensor([row]), max_new_tokens=6, do_sample=False
        )
        written = together[number, width:].tolist()
        assert alone[0, len(row) :].tolist() == written[: alone.shape[1] - len(row)]


def test_the_loss_is_that_of_the_next_tokens(model: VLBertForImageCaptioning) -> None:
    ids, known = texts(6)
    labels = ids.masked_fill(known == 0, -100)
    found = model(ids, pixels(6), known, labels=labels)
    logits = found.logits[:, :-1][labels[:, 1:] >= 0].log_softmax(dim=-1)
    own = logits.gather(1, labels[:, 1:][labels[:, 1:] >= 0][:, None])
    torch.testing.assert_close(found.loss, -own.mean())


def test_gradients_are_the_same_with_checkpointing() -> None:
    ids, known = texts(4)
    found = []
    for checkpoints in (False, True):
        model = built(VLBertForImageCaptioning).train()
        if checkpoints:
            model.gradient_checkpointing_enable()
        model(ids, pixels(4), known, labels=ids).loss.backward()
        found.append({name: param.grad for name, param in model.named_parameters() if param.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 50
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)


def test_attentions_are_given_when_asked_and_change_nothing() -> None:
    model, (ids, known) = built(VLBertForImageCaptioning), texts(4)
    plain, traced = (model(ids, pixels(4), known, output_attentions=asked) for asked in (False, True))
    torch.testing.assert_close(plain.logits, traced.logits, rtol=1e-4, atol=1e-5)
    assert plain.attentions is None
    assert [one.shape for one in traced.cross_attentions] == [(4, 4, 8, 5)] * 2
    torch.testing.assert_close(traced.attentions[0].sum(dim=-1), torch.ones(4, 4, 8))


def test_a_text_longer_than_the_positions_is_refused_in_a_sentence() -> None:
    model = built(VLBertForImageCaptioning)
    with pytest.raises(ValueError, match="wanted at most max_text_length"):
        model(torch.full((1, 17), 7), pixels(1))
    with pytest.raises(ValueError, match="this model has no processor"):
        model.generate(images=[None])
    with pytest.raises(ValueError, match="nothing to write about"):
        model.generate()
    with pytest.raises(ValueError, match="as VLBertProcessor makes them"):
        model.generate(pixels(2)[:, :, :8])


def test_the_shape_s_knobs_are_those_of_a_run() -> None:
    config = config_of(vision_hidden_size=40)
    assert config.plan.vision_width == 40 and config.num_hidden_layers == 4
