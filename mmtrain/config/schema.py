"""What a run can be told, one frozen model per section; nothing here imports what it configures."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mmtrain.config.presets import with_presets
from mmtrain.config.section import (
    MAX_BEAMS,
    MAX_LENGTH_PENALTY,
    MAX_TEMPERATURE,
    Amount,
    Count,
    Frozen,
    Positive,
    Share,
    Weight,
)
from mmtrain.config.tuning import FinetuneConfig

Activation = Literal["gelu", "quick_gelu", "gelu_tanh"]


class TrainConfig(Frozen):
    """How long, how much at once, and how the optimizer moves."""

    num_steps: Count = 1000  # optimizer steps of the whole run
    global_batch_size: Count = 64  # samples behind one optimizer step, over all ranks and micro-batches
    micro_batch_size: Count = 16  # samples one data-parallel rank runs at once
    learning_rate: Positive = 1e-3  # the peak, reached after the warm-up
    min_learning_rate_share: Share = 0.05  # what the cosine ends at, as a share of the peak
    warmup_steps: Amount = 100  # steps of linear rise from 0
    weight_decay: Weight = 0.05  # decoupled; not on norms, biases, positions and the temperature
    beta1: Share = 0.9  # decay of the gradient's mean
    beta2: Share = 0.98  # decay of the gradient's square
    epsilon: Positive = 1e-8  # Adam's floor under the root of the square
    gradient_clipping: Weight = 1.0  # largest global gradient norm; 0 leaves it alone


class ParallelConfig(Frozen):
    """How many ranks along each axis; data parallelism is what is left of the job."""

    tp: Count = 1  # ranks that share every matrix
    pp: Count = 1  # ranks that share the depth
    sequence_parallel: bool = False  # tensor-parallel ranks also share the tokens between their matrices
    chunks_per_stage: Count = 1  # parts of the depth on each pipeline rank; more idle less and send more
    stage_layers: tuple[Count, ...] | None = None  # a cut by hand: layers of each part, vision, text, fusion in a row
    timeout_seconds: Positive = 1800.0  # a collective that waits longer for another rank ends the run with an error


class ZeroConfig(Frozen):
    """What the data-parallel ranks keep a part of."""

    stage: Literal[1, 2, 3] = 3  # 1: optimizer states, 2: and gradients, 3: and weights
    # Stage 3 gathers weights for each use and lets them go (least memory), or once a step (least traffic; a rank then
    # holds its stage's whole weights and gradients). auto: per_use with one pipeline stage, else
    # per_step where the estimate of `mmtrain plan` fits the device.
    gather: Literal["per_step", "per_use", "auto"] = "auto"
    grad_accumulation: Literal["fp32", "bf16"] = "fp32"  # the type in which micro-batches' gradients add up


class RecomputeConfig(Frozen):
    """Per stack: keep every activation, or only each layer's input and compute the rest again."""

    vision: Literal["none", "full"] = "none"
    text: Literal["none", "full"] = "none"
    fusion: Literal["none", "full"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _one_word_for_all(cls, given: object) -> object:
        return dict.fromkeys(("vision", "text", "fusion"), given) if isinstance(given, str) else given


class ModelConfig(Frozen):
    """The three stacks and their shapes."""

    hidden_size: Count = 192  # width of the fusion stack, and of the towers unless they have their own
    vision_hidden_size: Count | None = None  # width of the vision tower
    text_hidden_size: Count | None = None  # width of the text tower
    num_heads: Count = 3  # attention heads at hidden_size; towers keep the same size of head
    mlp_ratio: Positive = 4.0  # width of the inner MLP layer over the width
    vision_layers: Count = 4
    text_layers: Count = 2
    fusion_layers: Count = 2
    image_size: Count = 64  # pixels along each side after the crop
    patch_size: Count = 8  # pixels along each side of a patch
    max_text_length: Count = 48  # tokens, [CLS] and [SEP] among them
    embedding_size: Count = 128  # width of the space that image and text share
    norm_epsilon: Positive = 1e-5  # of every norm, unless a tower has its own
    vision_norm_epsilon: Positive | None = None  # of the vision tower's norms
    text_norm_epsilon: Positive | None = None  # of the text tower's norms
    vision_activation: Activation = "gelu"  # of the vision tower's inner MLP layers
    text_activation: Activation = "gelu"  # of the text tower's inner MLP layers
    vision_class_token: bool = True  # a learned [CLS] stands before the patches
    vision_entry_norm: bool = False  # one more norm before the vision tower's first layer
    vision_pooling: Literal["first", "attention"] = "first"  # what ITC reads of an image: its first token, or all
    text_attention: Literal["by_row", "causal"] = "by_row"  # causal: in the text tower every row looks only back
    text_pooling: Literal["first", "last"] = "first"  # which token of a text ITC reads: [CLS] or [SEP]
    init_std: Positive = 0.02  # standard deviation of the first weights
    vision_position_std: Positive | None = None  # of the first positions of patches, unless it is init_std
    vision_position_init: Literal["normal", "sincos"] = "normal"  # sincos: waves along rows and columns; learned on
    recompute: RecomputeConfig = RecomputeConfig()
    init_from: Path | None = None  # folder whose weights come first: an export, or a CLIP or SigLIP of Hugging Face
    init_towers: Literal["both", "vision", "text"] = "both"  # what is taken of a CLIP or a SigLIP

    @property
    def vision_width(self) -> int:
        """Width of the vision tower."""
        return self.vision_hidden_size or self.hidden_size

    @property
    def text_width(self) -> int:
        """Width of the text tower."""
        return self.text_hidden_size or self.hidden_size

    @property
    def head_size(self) -> int:
        """Width of one attention head, the same in the three stacks."""
        return self.hidden_size // self.num_heads

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def image_length(self) -> int:
        """Tokens of one image: its patches, and [CLS] where there is one."""
        return self.num_patches + self.vision_class_token


class LossConfig(Frozen):
    """Weights of L = mlm L_MLM + itc L_ITC + vlp (L_ITM + L_LM); 0 leaves an objective and its cost out."""

    mlm: Weight = 1.0
    itc: Weight = 1.0
    vlp: Weight = 1.0
    itm: Weight | None = None  # of L_ITM alone, in place of vlp
    lm: Weight | None = None  # of L_LM alone, in place of vlp
    answer: Weight = 0.0  # of the choice among task.answers; task.answering=choose presets it

    @property
    def of_itm(self) -> float:
        """What L_ITM counts."""
        return self.vlp if self.itm is None else self.itm

    @property
    def of_lm(self) -> float:
        """What L_LM counts."""
        return self.vlp if self.lm is None else self.lm

    @property
    def compares(self) -> bool:
        """Whether whole texts are read both ways, and compared: ITM draws its negatives by similarity, as ITC does."""
        return self.itc > 0 or self.of_itm > 0 or self.answer > 0


class ItcConfig(Frozen):
    """Image-text contrast."""

    negatives: Literal["micro_batch", "global_batch"] = "micro_batch"  # which samples a pair is told from
    initial_temperature: Positive = 0.07
    min_temperature: Positive = 0.01  # the learned temperature is kept between these two
    max_temperature: Positive = 0.5


class ItmConfig(Frozen):
    """Image-text matching."""

    pool_size: Count = 16  # consecutive samples among which hard negatives are drawn; divides the micro-batch


class MlmConfig(Frozen):
    """Masked language modeling."""

    mask_share: Share = 0.15  # of a caption's tokens; of them 80 % masked, 10 % random, 10 % kept


class LmConfig(Frozen):
    """Captioning."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # of each next token, spread over the vocabulary


class SetConfig(Frozen):
    """One set of a blend."""

    shards: tuple[str, ...]  # shard folders, tar files, patterns, URLs or pipe: commands
    weight: Positive | None = None  # share of the samples drawn, relative to the other sets; unset: its size
    modality: Literal["image_text", "text", "image"] = "image_text"  # what of each sample is read and must be there

    @model_validator(mode="before")
    @classmethod
    def _one_place_is_a_list(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("shards"), str):
            return given | {"shards": [given["shards"]]}
        return given


class DataConfig(Frozen):
    """Where samples come from and how they are read."""

    train: tuple[str | SetConfig, ...] = ()  # places of one set, or entries {shards, weight, modality} of a blend
    heldout: tuple[str, ...] = ()  # the same, never trained on
    tokenizer: Path | None = None  # made by `mmdata tokenizer`, or a folder that holds another model's tokenizer.json
    num_workers: Amount = 1  # reader processes per rank; 0 reads in the training process
    max_bad_share: Share = 0.01  # of the samples read so far; more of them unreadable stop the run
    max_unknown_share: Share = (
        0.05  # of the pieces of the first captions; more of them unknown to the tokenizer stop the run
    )
    shuffle_pairs: bool = False  # break image and caption apart, to see that recall falls to chance
    # Of a sample with several captions: the one in KEY.txt, or in every epoch any of "captions" in KEY.json.
    caption: Literal["first", "any"] = "first"
    min_crop_share: Share = 1.0  # smallest area a random crop keeps; 1 resizes the whole image
    flip: bool = False  # mirror half of the images, never where the caption says left or right
    color_jitter: Share = 0.0  # brightness, contrast and saturation change by up to this share
    # Images of like shape stand in one global batch and keep that shape, up to this ratio of their sides, in no more
    # patches than the square of model.image_size has; 1: every image is cut to that square.
    max_aspect: Annotated[float, Field(ge=1.0, le=8.0)] = 1.0
    chunk_samples: Count = 64  # neighbours of a shard that stay together until the window: what is read in one go
    window_chunks: Count = 64  # chunks whose samples are mixed with each other; fewer are read more in order
    tail: Literal["drop", "pad"] = "drop"  # an epoch's last samples that fill no global batch: listed, or padded up
    # Places that begin with `pipe:` are commands, run in a shell. Taken from the command line only, and kept nowhere.
    allow_pipe: bool = Field(default=False, exclude=True)
    cache_dir: Path | None = None  # local folder for what is read of remote shards; must be set where there are any
    cache_bytes: Count = 64 * 2**30  # the most that folder may hold
    read_retries: Amount = 4  # further tries, each after a longer pause, before a failing read is given up and named
    read_timeout_seconds: Positive = 120.0  # a remote read has failed that waits so long for a connection or a byte

    @model_validator(mode="before")
    @classmethod
    def _one_place_is_a_list(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {
            key: [value] if key in ("train", "heldout") and isinstance(value, (str, dict, SetConfig)) else value
            for key, value in given.items()
        }

    @property
    def sets(self) -> tuple[SetConfig, ...]:
        """The sets that data.train names: plain places alone are one set, beside entries each is one of its own."""
        if self.train and all(isinstance(place, str) for place in self.train):
            return (SetConfig(shards=self.train),)
        return tuple(place if isinstance(place, SetConfig) else SetConfig(shards=(place,)) for place in self.train)


class EvalConfig(Frozen):
    """Held-out scores during the run."""

    every: Amount = 0  # optimizer steps between evaluations; 0: only after the last
    num_pairs: Count = 512  # held-out pairs, the first of the split
    num_pictures: Amount = 8  # held-out images shown with the captions they retrieve


class InvariantsConfig(Frozen):
    """Checks that every rank agrees: same step and config, equal replicas, equal negatives."""

    first_steps: Amount = 2  # how many steps are checked
    every_step: bool = False  # check all of them


class CheckpointConfig(Frozen):
    """What is kept of the run."""

    save_every: Amount = 0  # optimizer steps between saves; 0: only after the last
    asynchronous: bool = True  # the run goes on as soon as a copy lies in the host's memory: as much as is saved
    keep_last: Amount = 0  # the newest so many checkpoints stay; 0: all of them
    keep_every: Amount = 0  # and those after a multiple of so many steps; 0: no others
    on_failure: Literal["stop", "go_on"] = "stop"  # what the run does when a checkpoint cannot be written


class SurvivalConfig(Frozen):
    """What ends a run early, and how."""

    max_skipped_in_a_row: Amount = 10  # steps left out, for a gradient or loss that is no number; one more ends the run
    step_timeout_seconds: Weight = 1200.0  # a step that takes longer ends the run, with all ranks' stacks; 0: wait
    slow_phase_factor: Annotated[float, Field(ge=1.0)] = 5.0  # start, first step, scores and saves may take more times
    # What is done about a loss that leaps; roll_back loads the last checkpoint and leaves that step's samples out.
    spike_policy: Literal["none", "warn", "roll_back"] = "warn"
    spike_window: Annotated[int, Field(ge=4)] = 64  # losses before it that it is measured by
    spike_deviations: Positive = 20.0  # a leap is above their median by more than so many times their median deviation
    pace_every: Amount = 100  # steps between looks at how fast each node computes; 0: never
    slow_share: Positive = 0.25  # a node that is slower than the median by more than this is named in the log
    signals: tuple[str, ...] = ("SIGUSR2", "SIGTERM")  # on one of them all ranks save at a step boundary and end
    grace_seconds: Positive = 30.0  # what the launcher waits after it; a save that takes longer is warned of


class TaskConfig(Frozen):
    """What a run is for, and how its answers are found when they are scored."""

    name: Literal["pretrain", "caption", "vqa", "retrieval"] = "pretrain"  # presets what config/presets.py lists
    prompt: str = ""  # words before every caption, which are given and not learned; of task.name=caption
    num_beams: Annotated[Count, Field(le=MAX_BEAMS)] = (
        1  # texts that are followed at once while one is written; 1 takes the likeliest token
    )
    # A text's score is the sum of log-probabilities over its length to this power.
    length_penalty: Annotated[float, Field(ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY, allow_inf_nan=False)] = 1.0
    no_repeat_ngram: Amount = 0  # no run of so many tokens is written twice; 0 lets it be
    # Above 0 tokens are drawn by chance, likely ones the more the lower it is; 0 searches.
    temperature: Annotated[Weight, Field(le=MAX_TEMPERATURE)] = 0.0
    top_k: Amount = 0  # draws are among so many of the likeliest tokens; 0: all
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0  # and among the likeliest that have this share together
    # Of a text that is written, the last [SEP] among them; unset: model.max_text_length's rest. Questions leave room.
    max_new_tokens: Count | None = None
    # Candidates that are looked at closely: of a query the nearest by features, which the match head puts in order; of
    # a question the answers of task.answers whose first token is likeliest, which answering=rank puts in order.
    shortlist: Count = 16
    # How a question is answered: token by token, by the likeliest of task.answers, or by a head that knows only those.
    answering: Literal["write", "rank", "choose"] = "write"
    # What is chosen from: a list, or the name of a file (one a line, or a JSON list; `mmdata answers` makes one), whose
    # content stands here in the run's own config.
    answers: tuple[str, ...] = ()


class RunConfig(Frozen):
    """One run, whole."""

    run_dir: Path = Path("runs/unnamed")  # everything the run writes
    seed: Amount = 0  # of weights, order, crops, masks and negatives
    precision: Literal["fp32", "bf16", "auto"] = "auto"  # auto: bf16 where this device computes it natively
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    zero: ZeroConfig = ZeroConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    itc: ItcConfig = ItcConfig()
    itm: ItmConfig = ItmConfig()
    mlm: MlmConfig = MlmConfig()
    lm: LmConfig = LmConfig()
    task: TaskConfig = TaskConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    data: DataConfig = DataConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    invariants: InvariantsConfig = InvariantsConfig()
    survival: SurvivalConfig = SurvivalConfig()

    @model_validator(mode="before")
    @classmethod
    def _task_presets(cls, given: object) -> object:
        return with_presets(given) if isinstance(given, dict) else given
