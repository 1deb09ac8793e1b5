"""The sentencepiece tokenizer of a run, as a Hugging Face tokenizer: [CLS] pieces [SEP], pads behind or before."""

from pathlib import Path
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from mmtrain.hf.configuration import VLBertConfig
from mmtrain.io.control_tokens import treat_control_tokens_as_text
from mmtrain.io.utf8_paths import utf8_path

TOKENIZER_FILE = "tokenizer.model"
OUR_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class VLBertTokenizer(SentencePieceBackend):
    """Gives the ids that the run was trained with: a text that holds "[SEP]" or the like yields pieces of words."""

    vocab_files_names = {"vocab_file": TOKENIZER_FILE}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        special = {f"{name}_token": piece for name, piece in names.items()}
        special |= {"bos_token": "[CLS]", "eos_token": "[SEP]"}
        kwargs.pop("special_tokens_pattern", None)
        settings = special | kwargs | {"split_special_tokens": True}
        with utf8_path(vocab_file) as path:
            super().__init__(vocab_file=str(path), special_tokens_pattern="cls_sep", **settings)
        self.vocab_file = vocab_file  # which is copied where the tokenizer is saved

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        """The pieces of a text; what is unknown is [UNK], where its own signs could be the name of a control token."""
        return [self.sp_model.IdToPiece(number) for number in self.sp_model.EncodeAsIds(text)]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces, as sentencepiece puts it together."""
        return self.sp_model.decode_pieces(tokens)


def tokenizer_of_folder(folder: Path, config: VLBertConfig) -> PreTrainedTokenizerFast:
    """Another model's tokenizer as a run used it: [CLS] pieces [SEP], with pieces added for what it lacks.

    The ids of the five special pieces are the config's; those behind the folder's own vocabulary are new.
    """
    with utf8_path(folder / "tokenizer.json") as path:
        model = tokenizers.Tokenizer.from_file(str(path))
    roles = {
        "pad_token": (config.pad_token_id, "[PAD]"),
        "unk_token": (config.unk_token_id, "[UNK]"),
        "bos_token": (config.bos_token_id, "[CLS]"),
        "eos_token": (config.eos_token_id, "[SEP]"),
        "mask_token": (config.mask_token_id, "[MASK]"),
    }
    for number, piece in sorted(roles.values()):
        if model.id_to_token(number) is None:
            model.add_special_tokens([piece])
            if model.token_to_id(piece) != number:
                raise RuntimeError(f"{piece} got another id than the run gave it")
    treat_control_tokens_as_text(model, [*{model.id_to_token(number) for number, _ in roles.values()}, *OUR_NAMES])
    names = {role: model.id_to_token(number) for role, (number, _) in roles.items()}
    first, last = names["bos_token"], names["eos_token"]
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}",
        special_tokens=[(first, config.bos_token_id), (last, config.eos_token_id)],
    )
    model.no_padding()
    model.no_truncation()
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        model_max_length=config.max_text_length,
        model_input_names=["input_ids", "attention_mask"],
        split_special_tokens=True,
        **names,
    )
