"""Captions to token ids and back, with the five special tokens that the model counts on. No torch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from mmtrain.data.faults import DataError
from mmtrain.io.documents import read_regular
from mmtrain.io.file_kinds import HEAD_BYTES, describe_bytes

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # a piece's place here is its id
NUM_CHECKED_CAPTIONS = 256


class Tokenizer:
    """A sentencepiece model with the special pieces at their ids; DataError naming data.tokenizer where it is none."""

    pad_id, unk_id, cls_id, sep_id, mask_id = range(len(SPECIAL_PIECES))

    def __init__(self, path: Path) -> None:
        try:
            content = read_regular(path)
        except OSError as error:
            raise DataError(f"data.tokenizer is {str(path)!r}, which cannot be read: {error.strerror}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
            pieces = [self._model.IdToPiece(number) for number in range(len(SPECIAL_PIECES))]
        except (RuntimeError, IndexError) as error:
            kind = describe_bytes(content[:HEAD_BYTES]) or "no sentencepiece model, or a damaged one"
            raise DataError(f"data.tokenizer is {str(path)!r}, which is {kind}") from error
        if tuple(pieces) != SPECIAL_PIECES:
            raise DataError(
                f"data.tokenizer is {str(path)!r}, whose first pieces are {', '.join(pieces)}; "
                f"wanted {', '.join(SPECIAL_PIECES)}; make one with `mmdata tokenizer`"
            )
        if read_as_text := [piece for number, piece in enumerate(pieces) if not self._is_control(number)]:
            raise DataError(
                f"data.tokenizer is {str(path)!r}, whose {', '.join(read_as_text)} are parts of texts; wanted control "
                "symbols, which no text becomes; make one with `mmdata tokenizer`"
            )
        self.num_pieces: int = self._model.GetPieceSize()
        self.ordinary = range(len(SPECIAL_PIECES), self.num_pieces)  # ids of pieces that are parts of texts

    def _is_control(self, number: int) -> bool:
        return self._model.IsControl(number) or self._model.IsUnknown(number)

    def encode(self, text: str, max_length: int) -> list[int]:
        """[CLS] pieces [SEP], at most `max_length` ids: pieces at the end are dropped, [SEP] never."""
        if max_length < 2:
            raise RuntimeError(f"no room for [CLS] and [SEP] in {max_length} tokens")
        pieces = self._model.EncodeAsIds(text)[: max_length - 2]
        return [self.cls_id, *pieces, self.sep_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens other than [UNK] leave no trace."""
        silent = (self.pad_id, self.cls_id, self.sep_id, self.mask_id)
        return self._model.DecodeIds([int(number) for number in ids if number not in silent])

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the pieces of `texts` that are [UNK]; 0 where there is no piece."""
        pieces = [number for text in texts for number in self._model.EncodeAsIds(text)]
        return pieces.count(self.unk_id) / max(len(pieces), 1)


def check_tokenizer(tokenizer: Tokenizer, captions: Sequence[str], max_unknown_share: float) -> None:
    """DataError naming data.tokenizer when more than that share of the first captions' pieces is unknown to it."""
    first = captions[:NUM_CHECKED_CAPTIONS]
    share = tokenizer.unknown_share(first)
    if share > max_unknown_share:
        raise DataError(
            f"data.tokenizer does not know {share:.1%} of the pieces of the first {len(first)} "
            f"captions, more than data.max_unknown_share ({max_unknown_share:.1%}); "
            "train one on these shards with `mmdata tokenizer`"
        )
