"""Control tokens ([CLS], <|endoftext|>, ...) told from the same signs in people's texts. No torch.

A text is never read as control tokens, neither in training nor in the exported model: what it writes as "[SEP]" becomes
ordinary pieces (`split_special_tokens` in transformers, `encode_special_tokens` in tokenizers).
"""

from collections.abc import Iterable

import tokenizers
from tokenizers import normalizers


def treat_control_tokens_as_text(model: tokenizers.Tokenizer, names: Iterable[str]) -> None:
    """Change `model` so that no text yields the control tokens `names`, or any other that it holds as special.

    A vocabulary may hold a name as an ordinary piece too (Unigram models know no control pieces, word models match
    whole words), so a text that spells one out after normalization gets a space behind its first sign.
    """
    held = {str(token) for token in model.get_added_tokens_decoder().values() if token.special}
    spelled = sorted(name for name in {*names, *held} if len(name) > 1)  # one sign is punctuation
    model.add_special_tokens([name for name in spelled if model.token_to_id(name) is not None])
    model.encode_special_tokens = True
    breaks = [normalizers.Replace(name, f"{name[0]} {name[1:]}") for name in spelled]
    before = [] if model.normalizer is None else [model.normalizer]
    model.normalizer = normalizers.Sequence([*before, *breaks])
