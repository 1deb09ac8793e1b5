"""The twin's shape: the knobs of `model` in a run's config, and what its tokenizer and its answers are."""

from typing import Any

from transformers import PreTrainedConfig

from mmtrain.config.schema import ItcConfig, ModelConfig

RUNS_OWN = ("vision_position_init", "recompute", "init_from", "init_towers")  # how a run begins and what it keeps
COPIED = tuple(name for name in ModelConfig.model_fields if name not in RUNS_OWN)


class VLBertConfig(PreTrainedConfig):
    """Shape of a VLBert model; names and meanings are those of a run's `model` section."""

    model_type = "vlbert"
    attribute_map = {"num_attention_heads": "num_heads", "max_position_embeddings": "max_text_length"}

    hidden_size: int = 192
    vision_hidden_size: int | None = None
    text_hidden_size: int | None = None
    num_heads: int = 3
    mlp_ratio: float = 4.0
    vision_layers: int = 4
    text_layers: int = 2
    fusion_layers: int = 2
    image_size: int = 64
    patch_size: int = 8
    max_text_length: int = 48
    embedding_size: int = 128
    norm_epsilon: float = 1e-5
    vision_norm_epsilon: float | None = None
    text_norm_epsilon: float | None = None
    vision_activation: str = "gelu"
    text_activation: str = "gelu"
    vision_class_token: bool = True
    vision_entry_norm: bool = False
    vision_pooling: str = "first"
    text_attention: str = "by_row"
    text_pooling: str = "first"
    init_std: float = 0.02
    vision_position_std: float | None = None
    vocab_size: int = 512  # rows of the embedding and of the token head, filled up to a multiple
    num_pieces: int = 512  # of the tokenizer: ids from here on mean nothing
    min_temperature: float = 0.01
    max_temperature: float = 0.5
    caption_prompt: str = ""  # that every caption was trained to stand behind
    answers: list[str] | None = None  # what a classifier of questions chooses from; None: answers are generated
    answer_tokens: int = 8  # that a question leaves free for its generated answer, [SEP] among them
    pad_token_id: int | None = 0
    unk_token_id: int | None = 1
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    mask_token_id: int | None = 4

    @classmethod
    def of(cls, model: ModelConfig, itc: ItcConfig, *, vocab_size: int, num_pieces: int, **more: Any) -> "VLBertConfig":
        """The shape of a run's model; `vocab_size` is the padded one."""
        shape = {name: getattr(model, name) for name in COPIED}
        bounds = {"min_temperature": itc.min_temperature, "max_temperature": itc.max_temperature}
        return cls(**shape, **bounds, vocab_size=vocab_size, num_pieces=num_pieces, **more)

    @property
    def plan(self) -> ModelConfig:
        """The same shape as a run's config says it, with what follows from the knobs."""
        return ModelConfig(**{name: getattr(self, name) for name in COPIED})

    @property
    def num_hidden_layers(self) -> int:
        """Layers that keep keys and values of the text while it is generated."""
        return self.text_layers + self.fusion_layers
