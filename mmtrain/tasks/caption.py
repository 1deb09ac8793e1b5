"""Captioning: what the model writes about held-out images, scored against what people, or the scene, say."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial

from mmtrain.config.schema import RunConfig
from mmtrain.data.answer_ids import choose_ids, merged_rows
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place, build_evaluation
from mmtrain.engine.contract import Scorer
from mmtrain.engine.passes import Passes
from mmtrain.records import EvalReport, Shown
from mmtrain.scores.caption import caption_scores
from mmtrain.scores.truth import as_scene, right, shares_right
from mmtrain.tasks.beams import Marks
from mmtrain.tasks.split import texts_of_split
from mmtrain.tasks.writing import Writer

NAME = "captions"


class Captioning:
    """The next token of a caption is learned; captions are written and compared with the references."""

    name = "caption"

    def scorer(self, plan: RunConfig, place: Place, heldout: HeldOut) -> Scorer:
        return CaptionScorer(plan, place, heldout)


class CaptionScorer:
    """Perplexity of the held-out captions, and the scores of the written ones beside those of the best constant one."""

    def __init__(self, plan: RunConfig, place: Place, heldout: HeldOut) -> None:
        self.plan, self.place, self.heldout = plan, place, heldout
        self.references = heldout.all_references()  # before anything is trained: it refuses what cannot be scored
        self.scenes = [as_scene(heldout.metadata(sample).get("scene")) for sample in range(len(heldout))]
        self.ids = choose_ids([heldout.answered(sample) for sample in range(len(heldout))], "image_id")
        self.plain = build_evaluation(plan, place, heldout)
        self.writer = Writer(plan, place, Marks.of(heldout.tokenizer))

    def run(self, passes: Passes) -> EvalReport:
        report = self.plain.run(passes)
        write = partial(self.writer.write, passes)
        written, is_whole = texts_of_split(self.plan, self.place, self.heldout, write)
        captions = [self.heldout.tokenizer.decode(tokens) for tokens in written]
        whole = [sample for sample, own in enumerate(self.references) if own and is_whole[sample]]
        rows = merged_rows([self.ids[n] for n in whole], [{"caption": captions[n]} for n in whole], "image_id")
        shown = tuple(self._shown(sample, captions[sample]) for sample in whole[: self.plan.eval.num_pictures])
        scores = self._scores(captions, whole) if whole else {}
        return replace(report, scores=report.scores | {NAME: scores}, answers={NAME: rows}, shown=shown)

    def _shown(self, sample: int, caption: str) -> Shown:
        scene = self.scenes[sample]
        is_right = None if scene is None else right(caption, scene)["all"]
        return Shown(sample, self.references[sample][0], caption, is_right)

    def _scores(self, captions: Sequence[str], whole: Sequence[int]) -> dict[str, float]:
        """Of one caption for each image against the references of all its samples: those of --apart share images."""
        references: dict[Hashable, list[str]] = defaultdict(list)
        first: dict[Hashable, int] = {}
        for sample in whole:
            image = self.heldout.answered(sample).identity
            references[image] += self.references[sample] or []
            first.setdefault(image, sample)
        said, wanted = [captions[sample] for sample in first.values()], list(references.values())
        scores: dict[str, float] = caption_scores(said, wanted)
        constant = most_central(wanted)
        scores |= _of_constant(caption_scores([constant] * len(said), wanted))
        scenes = [scene for sample in first.values() if (scene := self.scenes[sample]) is not None]
        if len(scenes) == len(said):
            scores |= shares_right(said, scenes)
            scores |= _of_constant(shares_right([constant] * len(said), scenes))
        return scores | {"num_images": len(said), "num_words_per_caption": _mean_words(said)}


def most_central(references: Sequence[Sequence[str]]) -> str:
    """The reference whose words are the commonest among all: a caption for any image, as a prior.

    Words count by the share of the images whose references hold them; a caption by their mean.
    """
    seen = Counter(word for several in references for word in {word for text in several for word in text.split()})
    every = sorted({text for several in references for text in several})
    return max(every, key=lambda text: statistics.fmean([seen[word] for word in text.split()] or [0]))


def _of_constant(scores: dict[str, float]) -> dict[str, float]:
    return {f"constant_{name}": value for name, value in scores.items()}


def _mean_words(captions: Sequence[str]) -> float:
    return statistics.fmean(len(caption.split()) for caption in captions)
