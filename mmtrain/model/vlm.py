"""The whole model: two towers, the fusion, the heads. Reads `Rows`, returns `Features`.

Axes: B samples, T text positions, S image tokens, Y rows of the text stack, R rows of the fusion stack.
"""

import torch

from mmtrain.config.schema import RunConfig
from mmtrain.model.fusion import Fusion
from mmtrain.model.heads import ContrastHead, MatchHead, TokenHead
from mmtrain.model.layers import stack_config
from mmtrain.model.rows import FUSION_KINDS, Negatives, Rows, draw_negatives
from mmtrain.model.text import TextTower
from mmtrain.model.vision import VisionTower
from mmtrain.records import Features

TEXT_OF_FUSION = {"positive": "clean", "negative_image": "clean", "negative_text": "clean"}  # the others read their own


class VisionLanguageModel(torch.nn.Module):
    """One straight pass: every stack runs once over all rows that the objectives asked for.

    `vocab_size` is the padded one, which tensor parallelism divides.
    """

    def __init__(self, plan: RunConfig, vocab_size: int) -> None:
        super().__init__()
        model, tp = plan.model, plan.parallel.tp
        fusion_config = stack_config(model, model.hidden_size, model.fusion_layers, tp)
        text_config = stack_config(model, model.text_width, model.text_layers, tp)
        self.vision = VisionTower(model, stack_config(model, model.vision_width, model.vision_layers, tp))
        self.text = TextTower(model, text_config, vocab_size)
        self.fusion = Fusion(model, fusion_config)
        self.contrast = ContrastHead(model, plan.itc)
        self.match = MatchHead(model)
        self.token = TokenHead(model, fusion_config, vocab_size)
        self.pool_size = plan.itm.pool_size

    def forward(self, rows: Rows) -> Features:
        """Everything the objectives read; what nobody asked for is absent."""
        layout = rows.layout
        image_SBH = self.vision(rows.images_BCHW)
        texts = _by_kind(self.text(rows.text_ids_YT, rows.text_mask_Y1TT), layout.text, dim=1)
        masks = _by_kind(rows.text_mask_Y1TT, layout.text, dim=0)
        features = Features()
        negatives = None
        if "clean" in layout.text:
            features["image_BE"], features["text_BE"], features["temperature"] = self.contrast(
                image_SBH[0], texts["clean"][0]
            )
            if layout.has_negatives:
                negatives = draw_negatives(
                    features["image_BE"], features["text_BE"], features["temperature"], rows, self.pool_size
                )
                features["has_negative_B"] = negatives.has_B
        if layout.fusion:
            fused = self._fuse(image_SBH, texts, masks, rows, negatives)
            features |= self._read(fused, rows)
        return features

    def _fuse(
        self,
        image_SBH: torch.Tensor,
        texts: dict[str, torch.Tensor],
        masks: dict[str, torch.Tensor],
        rows: Rows,
        negatives: Negatives | None,
    ) -> dict[str, torch.Tensor]:
        own_B = torch.arange(image_SBH.shape[1], device=image_SBH.device)
        text_parts, mask_parts, image_parts = [], [], []
        for kind in rows.layout.fusion:
            text_kind = TEXT_OF_FUSION.get(kind, kind)
            text_TBH, mask_B1TT, image_B = texts[text_kind], masks[text_kind], own_B
            if kind == "negative_image":
                image_B = negatives.image_B
            if kind == "negative_text":
                text_TBH = text_TBH.index_select(1, negatives.text_B)
                mask_B1TT = mask_B1TT.index_select(0, negatives.text_B)
            text_parts.append(text_TBH)
            mask_parts.append(mask_B1TT)
            image_parts.append(image_B)
        fused_TRH = self.fusion(
            image_SBH,
            torch.cat(text_parts, dim=1),
            torch.cat(mask_parts),
            torch.cat(image_parts),
            rows.has_image_B,
            rows.all_images,
        )
        return _by_kind(fused_TRH, rows.layout.fusion, dim=1)

    def _read(self, fused: dict[str, torch.Tensor], rows: Rows) -> Features:
        features = Features()
        matched = [kind for kind in ("positive", "negative_image", "negative_text") if kind in fused]
        if matched:
            logits_R2 = self.match(torch.cat([fused[kind][0] for kind in matched]))
            features["match_logits"] = _by_kind(logits_R2, matched, dim=0)
        if rows.picks:
            picked = [fused[kind][picks.position_N, picks.row_N] for kind, picks in rows.picks.items()]
            logits_NV = self.token(torch.cat(picked))
            parts = logits_NV.split([part.shape[0] for part in picked])
            features["token_logits"] = dict(zip(rows.picks, parts, strict=True))
            features["token_labels"] = {kind: picks.labels_N for kind, picks in rows.picks.items()}
        return features


def _by_kind(stacked: torch.Tensor, kinds: tuple[str, ...] | list[str], dim: int) -> dict[str, torch.Tensor]:
    return dict(zip(kinds, stacked.chunk(len(kinds), dim=dim), strict=True)) if kinds else {}


assert set(TEXT_OF_FUSION) < set(FUSION_KINDS)
