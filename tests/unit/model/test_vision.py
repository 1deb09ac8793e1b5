"""Images of another shape than the square: where their patches stand, and that fillers change nothing."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from mmtrain.model.rows import FUSION_KINDS, TEXT_KINDS, Layout, plan_rows
from tests.helpers import VOCAB_SIZE, made_batch, tiny_plan

if TYPE_CHECKING:
    from mmtrain.engine.build import Place

EVERY = Layout.of([*TEXT_KINDS, *FUSION_KINDS])
PATCH_SIZE, SIDE = 4, 4


@pytest.fixture
def embedding() -> torch.nn.Module:
    from mmtrain.model.vision import PatchEmbedding

    torch.manual_seed(0)
    embedding = PatchEmbedding(tiny_plan(model={"image_size": 16, "patch_size": PATCH_SIZE}).model, unit=1)
    torch.nn.init.normal_(embedding.positions)
    return embedding


def test_a_square_image_has_the_learned_positions_themselves(embedding: torch.nn.Module) -> None:
    assert embedding._positions_of(SIDE, SIDE) is embedding.positions


def test_positions_of_another_shape_run_from_edge_to_edge_as_those_of_the_square_do(embedding: torch.nn.Module) -> None:
    down, across = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    with torch.no_grad():
        embedding.positions[1:, 0], embedding.positions[1:, 1] = down.flatten().float(), across.flatten().float()
    found = embedding._positions_of(2, 8)
    assert torch.equal(found[0], embedding.positions[0])
    grid = found[1:].view(2, 8, -1)
    # Bicubic reading keeps a ramp to within a twentieth of a patch where it needs nothing beyond the edge.
    torch.testing.assert_close(grid[0, 3:5, 1], torch.tensor([1.25, 1.75]), atol=0.05, rtol=0)
    assert (grid[1, :, 0] > grid[0, :, 0]).all() and (grid[0].diff(dim=0)[:, 1] > 0).all()


def test_positions_of_another_shape_pass_their_gradients_to_the_learned_ones(embedding: torch.nn.Module) -> None:
    embedding._positions_of(3, 5).sum().backward()
    assert (embedding.positions.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("sides", [(8, 24), (24, 8), (16, 16)])
def test_wide_and_tall_images_go_through_the_whole_model(place: "Place", sides: tuple[int, int]) -> None:
    from mmtrain.engine.build import build_model

    model = build_model(tiny_plan(model={"patch_size": PATCH_SIZE, "init_std": 0.2}), place, VOCAB_SIZE)[0]
    numbers = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 3, *sides), generator=numbers, dtype=torch.uint8)
    batch = replace(made_batch(range(8)), images_BCHW=images)
    turned = replace(batch, images_BCHW=images.flip(3))
    with torch.no_grad():
        one, two = (model(plan_rows(each, EVERY)) for each in (batch, turned))
    assert one["image_BE"].isfinite().all()
    assert not torch.allclose(one["image_BE"], two["image_BE"], atol=1e-3), "where a patch stands tells nothing"
