"""The sentencepiece tokenizer of a run, as a Hugging Face tokenizer: [CLS] pieces [SEP], pads behind or before."""

from typing import Any

from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

TOKENIZER_FILE = "tokenizer.model"


class VLBertTokenizer(SentencePieceBackend):
    """Gives the ids that the run was trained with."""

    vocab_files_names = {"vocab_file": TOKENIZER_FILE}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        special = {f"{name}_token": piece for name, piece in names.items()}
        special |= {"bos_token": "[CLS]", "eos_token": "[SEP]"}
        kwargs.pop("special_tokens_pattern", None)
        super().__init__(vocab_file=vocab_file, special_tokens_pattern="cls_sep", **(special | kwargs))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces, as sentencepiece puts it together."""
        return self.sp_model.decode_pieces(tokens)
