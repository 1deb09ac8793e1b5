"""The whole model, or the part of it that one pipeline stage holds: two towers, the fusion, the heads.

Axes: B samples, T text positions, S image tokens, Y rows of the text stack, R rows of the fusion stack.
"""

import torch

from mmtrain.config.depth import STACKS, Part
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import num_image_tokens, sequence_unit
from mmtrain.model.fusion import Fusion
from mmtrain.model.heads import AnswerHead, ContrastHead, MatchHead, TokenHead
from mmtrain.model.layers import gathered
from mmtrain.model.packet import Flow, PacketShape
from mmtrain.model.rows import FUSION_KINDS, Negatives, Rows, draw_negatives
from mmtrain.model.stack import stack_config
from mmtrain.model.text import TextTower
from mmtrain.model.vision import VisionTower
from mmtrain.records import Features

TEXT_OF_FUSION = {"positive": "clean", "negative_image": "clean", "negative_text": "clean"}  # the others read their own
MATCHED_KINDS = ("positive", "negative_image", "negative_text")
if not set(TEXT_OF_FUSION) < set(FUSION_KINDS):
    raise RuntimeError("TEXT_OF_FUSION names a kind of row that the fusion stack has not")


class VisionLanguageModel(torch.nn.Module):
    """One straight pass: every stack runs once over all rows that the objectives asked for.

    `vocab_size` is the padded one, which tensor parallelism divides; `part` the layers that are here, all by default.
    """

    def __init__(self, plan: RunConfig, vocab_size: int, part: Part | None = None) -> None:
        super().__init__()
        model, parallel = plan.model, plan.parallel
        self.part = part = part or Part.whole(model)
        self.model, self.pool_size = model, plan.itm.pool_size
        self.unit = sequence_unit(parallel)
        self.num_image_tokens = num_image_tokens(model, parallel)
        configs = {
            stack: stack_config(model, parallel, plan.finetune.lora, stack, size)
            for stack, size in zip(STACKS, part.sizes, strict=True)
        }
        self.fusion_config, self.text_config, self.vision_config = configs["fusion"], configs["text"], configs["vision"]
        self.last_draw: torch.Tensor | None = None  # of the last micro-batch: every stage must have found the same
        self.vision = self.text = self.contrast = self.fusion = self.match = self.token = self.answer = None
        if part.layers("vision"):
            self.vision = VisionTower(model, self.vision_config, part, self.unit)
        if part.layers("text"):
            self.text = TextTower(model, self.text_config, part, vocab_size)
        if part.ends("text"):
            self.contrast = ContrastHead(model, plan.itc)
        if part.layers("fusion"):
            self.fusion = Fusion(model, self.fusion_config, part, self.unit)
        if part.is_last:
            self.match = MatchHead(model)
            self.token = TokenHead(model, self.fusion_config, vocab_size)
            if plan.task.answering == "choose":
                self.answer = AnswerHead(model, len(plan.task.answers))

    @property
    def is_last(self) -> bool:
        """Whether the heads are here."""
        return self.part.is_last

    def packet_shape(self, rows: Rows) -> PacketShape:
        """How this micro-batch travels between stages."""
        return PacketShape(self.model, rows.layout, self.num_image_tokens, rows.text_ids_YT.shape[1], self.unit)

    def forward(self, rows: Rows, packet_LBW: torch.Tensor | None = None) -> Features | torch.Tensor:
        """Features from the last stage, with everything the objectives read; from the others the packet [L, B, W]."""
        shape = self.packet_shape(rows)
        flow = Flow() if packet_LBW is None else shape.unpack(packet_LBW, self.part.start)
        if self.vision is not None:
            images = rows.images_BCHW if self.vision.embedding is not None else flow.image_SBH
            flow.image_SBH = self.vision(images, self._num_real(rows))
        if self.text is not None and rows.layout.text:
            tokens = rows.text_ids_YT if self.text.embedding is not None else flow.text_TRH
            flow.text_TRH = self.text(tokens, rows.text_mask_Y1TT)
        if self.contrast is not None and "clean" in rows.layout.text:
            flow.features = self._compare(flow, rows)
        if self.fusion is not None and rows.layout.fusion:
            flow = self._fuse(flow, rows)
        if self.part.is_last:
            return flow.features | (self._read(flow, rows) if rows.layout.fusion else Features())
        return shape.pack(flow, self.part.stop, next(self.parameters()).dtype)

    def _num_real(self, rows: Rows) -> int:
        """[CLS] if any and patches of an image; shapes of their own come only where one stage holds all layers."""
        height, width = (side // self.model.patch_size for side in rows.images_BCHW.shape[2:])
        return self.model.vision_class_token + (height * width or self.model.num_patches)

    def _compare(self, flow: Flow, rows: Rows) -> Features:
        image_SBH = gathered(flow.image_SBH, self.vision_config)[: self._num_real(rows)]
        clean_TBH = gathered(flow.text_TRH[:, : image_SBH.shape[1]], self.text_config)  # the first of the kinds
        if rows.layout.text[0] != "clean":
            raise RuntimeError("the clean texts are not the first rows of the text tower")
        found = self.contrast(image_SBH, clean_TBH, rows.last_B)
        # As they would come out of a packet, so that the loss and the negatives are the same with and without stages.
        image_BE, text_BE, temperature = (part.to(image_SBH.dtype).float() for part in found)
        return Features(image_BE=image_BE, text_BE=text_BE, temperature=temperature)

    def _fuse(self, flow: Flow, rows: Rows) -> Flow:
        layout, own_B = rows.layout, torch.arange(rows.has_pair_B.shape[0], device=rows.has_pair_B.device)
        negatives = None
        if layout.has_negatives:
            found = flow.features
            negatives = draw_negatives(found["image_BE"], found["text_BE"], found["temperature"], rows, self.pool_size)
            self.last_draw = torch.cat([negatives.image_B, negatives.text_B])
            flow.features = flow.features | Features(has_negative_B=negatives.has_B)
        masks = _by_kind(rows.text_mask_Y1TT, layout.text, dim=0)
        mask_R1TT = torch.cat([_text_of(masks, kind, negatives, dim=0) for kind in layout.fusion])
        row_image_R = torch.cat([negatives.image_B if kind == "negative_image" else own_B for kind in layout.fusion])
        images_mask = self.fusion.image_mask(rows.has_image_B, row_image_R, self._num_real(rows), rows.all_images)
        if self.fusion.entry is not None:
            texts = _by_kind(flow.text_TRH, layout.text, dim=1)
            text_TRH = torch.cat([_text_of(texts, kind, negatives, dim=1) for kind in layout.fusion], dim=1)
            flow.image_SBH, flow.text_TRH = self.fusion.entry(flow.image_SBH, text_TRH, rows.has_image_B)
        flow.text_TRH = self.fusion(flow.image_SBH, flow.text_TRH, mask_R1TT, row_image_R, images_mask)
        return flow

    def _read(self, flow: Flow, rows: Rows) -> Features:
        fused = _by_kind(gathered(flow.text_TRH, self.fusion_config), rows.layout.fusion, dim=1)
        features = Features()
        matched = [kind for kind in MATCHED_KINDS if kind in fused]
        if matched:
            logits_R2 = self.match(torch.cat([fused[kind][0] for kind in matched]))
            features["match_logits"] = _by_kind(logits_R2, matched, dim=0)
        if self.answer is not None and "positive" in fused:
            features["answer_logits_BA"] = self.answer(fused["positive"][0])
        if rows.picks:
            picked = [fused[kind][picks.position_N, picks.row_N] for kind, picks in rows.picks.items()]
            logits_NV = self.token(torch.cat(picked))
            parts = logits_NV.split([part.shape[0] for part in picked])
            features["token_logits"] = dict(zip(rows.picks, parts, strict=True))
            features["token_labels"] = {kind: picks.labels_N for kind, picks in rows.picks.items()}
        return features


def _by_kind(stacked: torch.Tensor, kinds: tuple[str, ...] | list[str], dim: int) -> dict[str, torch.Tensor]:
    return dict(zip(kinds, stacked.chunk(len(kinds), dim=dim), strict=True))


def _text_of(by_text_kind: dict[str, torch.Tensor], kind: str, negatives: Negatives | None, dim: int) -> torch.Tensor:
    """The text rows that a kind of fusion rows starts from."""
    rows = by_text_kind[TEXT_OF_FUSION.get(kind, kind)]
    return rows.index_select(dim, negatives.text_B) if kind == "negative_text" else rows
