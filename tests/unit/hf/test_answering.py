"""Questions answered from a list or in words, and pairs told apart."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from mmtrain.hf import VLBertConfig, VLBertForImageTextRetrieval, VLBertForVisualQuestionAnswering
from mmtrain.hf.generating import generation_config_of
from mmtrain.hf.processing import processor_of
from tests.unit.data.made import caption_of, train_tokenizer
from tests.unit.hf.built import built, config_of, pixels, texts

ANSWERS = ["yes", "no", "two", "red"]


def chooser() -> VLBertForVisualQuestionAnswering:
    torch.manual_seed(0)
    return VLBertForVisualQuestionAnswering(VLBertConfig(**{**config_of().to_dict(), "answers": ANSWERS})).eval()


def test_a_chooser_has_logits_over_its_answers_and_learns_from_one_right_answer_or_from_shares() -> None:
    model, (ids, known) = chooser(), texts(5)
    logits = model(ids, pixels(5), known).logits
    assert logits.shape == (5, len(ANSWERS)) and logits.std() > 0.01
    one = torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(
        model(ids, pixels(5), known, labels=one).loss, torch.nn.functional.cross_entropy(logits, one)
    )
    shares = torch.nn.functional.one_hot(one, len(ANSWERS)) * 0.6
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, shares, reduction="none").sum(dim=1).mean()
    torch.testing.assert_close(model(ids, pixels(5), known, labels=shares).loss, wanted)
    with pytest.raises(ValueError, match="chooses among config.answers"):
        model.generate(pixels(1))


def test_a_writer_learns_the_answer_and_writes_one() -> None:
    model, (ids, known) = built(VLBertForVisualQuestionAnswering), texts(4)
    model.generation_config = generation_config_of(model.config, range(5))
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < 3, -100).masked_fill(known == 0, -100)
    loss = model(ids, pixels(4), known, labels=labels).loss
    loss.backward()
    assert loss > 0 and model.token.vocabulary.weight.grad.abs().sum() > 0
    written = model.generate(pixels(4), input_ids=ids[:, :4], max_new_tokens=3)
    assert written.shape == (4, 7)


def test_a_question_is_read_both_ways_with_and_without_the_cache() -> None:
    model, (ids, known) = built(VLBertForVisualQuestionAnswering), texts(40)
    model.generation_config = generation_config_of(model.config, range(5))
    turned = {"input_ids": ids.flip(1), "attention_mask": known.flip(1)}  # pads stand before
    found = [
        model.generate(pixels(40), **turned, prefix_length=length, use_cache=cache, max_length=14)
        for length, cache in ((8, True), (8, False), (0, True))
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_long_question_leaves_its_answer_room(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path / "tokenizer.model", [caption_of(number) for number in range(200)])
    processor, model = processor_of(tokenizer, config_of()), built(VLBertForVisualQuestionAnswering)
    model.config.answer_tokens, model.config.num_pieces = 4, len(processor.tokenizer)
    model.generation_config, model.processor = generation_config_of(model.config, range(5)), processor
    picture = Image.new("RGB", (20, 20))
    said = model.answer([picture, picture], ["red " * 50, "a picture of red"])
    assert len(said) == 2 and all(isinstance(words, str) for words in said)
    assert model.answer([picture], "a picture of red") == [model.answer(picture, "a picture of red")]
    prompts = processor.prompts(["red " * 50], ends=True, room=4)["input_ids"]
    assert prompts.shape[1] == model.config.max_text_length - 4 and prompts[0, -1] == model.config.eos_token_id


def test_pairs_are_matched_and_contrasted_in_one_loss() -> None:
    model, (ids, known) = built(VLBertForImageTextRetrieval), texts(6)
    labels = torch.tensor([1, 1, 1, 1, 0, 0])
    found = model(ids, pixels(6), known, labels=labels)
    assert found.match_logits.shape == (6, 2) and found.logits_per_image.shape == (6, 6)
    torch.testing.assert_close(found.logits_per_image.t(), found.logits_per_text)
    own = torch.arange(4)
    among = found.logits_per_image[:4, :4]
    both = [torch.nn.functional.cross_entropy(logits, own) for logits in (among, among.t())]
    wanted = torch.nn.functional.cross_entropy(found.match_logits, labels) + sum(both) / 2
    torch.testing.assert_close(found.loss, wanted)
    torch.testing.assert_close(found.image_embeds, model.vlbert.get_image_features(pixels(6)))
    torch.testing.assert_close(found.text_embeds, model.vlbert.get_text_features(ids, known))
    assert len(model(ids, pixels(6), known, return_dict=False)) >= 5
