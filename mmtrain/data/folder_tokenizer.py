"""The tokenizer in a Hugging Face folder, with the special tokens that the model counts on. No torch."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from mmtrain.data.faults import DataError
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.io.control_tokens import treat_control_tokens_as_text
from mmtrain.io.documents import MAX_JSON_BYTES, DocumentError, read_document, read_json_object

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
ROLES = {  # which of a folder's own special tokens serve as ours, the first that there is
    "[PAD]": ("pad_token",),
    "[UNK]": ("unk_token",),
    "[CLS]": ("cls_token", "bos_token"),
    "[SEP]": ("sep_token", "eos_token"),
    "[MASK]": ("mask_token",),
}


class FolderTokenizer:
    """Another model's tokenizer; special pieces that it lacks get the ids behind its last."""

    def __init__(self, folder: Path) -> None:
        try:
            content = read_document(folder / FILES[0], max_bytes=MAX_JSON_BYTES)
            self._model = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises no class of its own
            raise DataError(f"data.tokenizer is {str(folder)!r}, where no {FILES[0]} can be read: {error}") from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._model.no_padding()
        self._model.no_truncation()
        self.pieces, names = self._special_pieces(folder)
        size = self._model.get_vocab_size()
        treat_control_tokens_as_text(self._model, [*names, *ROLES])
        if self._model.get_vocab_size() != size:
            raise RuntimeError("a control token got an id of its own")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = self.pieces.values()
        self.num_pieces = max(self._model.get_vocab_size(), *(number + 1 for number in self.pieces.values()))
        self.ordinary = _longest_run(set(self.pieces.values()), self.num_pieces)

    def _special_pieces(self, folder: Path) -> tuple[dict[str, int], list[str]]:
        """Ids of the five, by our names, and what the folder calls those that it has."""
        said = {}
        for file in FILES[1:]:
            if (folder / file).exists():
                said |= _read_object(folder / file)
        found, names, new = {}, [], self._model.get_vocab_size()
        for piece, roles in ROLES.items():
            given = next((said[role] for role in roles if said.get(role)), None)
            name = given.get("content") if isinstance(given, dict) else given
            if name is not None and not isinstance(name, str):
                raise DataError(f"data.tokenizer is {str(folder)!r}, where {piece} is {name!r:.60}; wanted a text")
            number = None if name is None else self._model.token_to_id(name)
            if number is None:
                number, new = new, new + 1
            else:
                names.append(name)
            found[piece] = number
        return found, names

    def encode(self, text: str, max_length: int) -> list[int]:
        """[CLS] pieces [SEP], at most `max_length` ids: pieces at the end are dropped, [SEP] never."""
        if max_length < 2:
            raise RuntimeError(f"no room for [CLS] and [SEP] in {max_length} tokens")
        pieces = self._model.encode(text, add_special_tokens=False).ids[: max_length - 2]
        return [self.cls_id, *pieces, self.sep_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens other than [UNK] leave no trace."""
        silent = {self.pad_id, self.cls_id, self.sep_id, self.mask_id}
        return self._model.decode([int(number) for number in ids if number not in silent]).strip()

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the pieces of `texts` that are [UNK]; 0 where there is no piece."""
        pieces = [number for text in texts for number in self._model.encode(text, add_special_tokens=False).ids]
        # A tokenizer whose [UNK] is another special token, as CLIP's, never writes it.
        is_own = self.unk_id not in (self.pad_id, self.sep_id)
        return pieces.count(self.unk_id) / max(len(pieces), 1) if is_own else 0.0


def _read_object(file: Path) -> dict[str, Any]:
    try:
        return read_json_object(file)
    except (DocumentError, OSError) as error:
        raise DataError(f"data.tokenizer is {str(file.parent)!r}, where {file.name} cannot be read: {error}") from None


AnyTokenizer = Tokenizer | FolderTokenizer


def tokenizer_at(path: Path) -> AnyTokenizer:
    """The tokenizer of a sentencepiece file or of a Hugging Face folder; DataError where it is neither."""
    return FolderTokenizer(path) if path.is_dir() else Tokenizer(path)


def _longest_run(special: set[int], num_pieces: int) -> range:
    """The most ids in a row that are no special piece: what is masked, and what a random piece is drawn from."""
    edges = [-1, *sorted(special), num_pieces]
    return max((range(low + 1, high) for low, high in zip(edges, edges[1:], strict=False)), key=len)
