"""One process that has joined itself: what the pieces of the model ask for before they can be made."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.helpers import tiny_plan

if TYPE_CHECKING:
    from mmtrain.engine.build import Place


# The same examples every time, and no deadline: a busy machine changes no result. HYPOTHESIS_PROFILE=search draws anew.
settings.register_profile("tests", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("search", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))


@pytest.fixture(scope="module")
def place() -> Iterator["Place"]:
    """This process alone in every group; what the groups leave in the environment goes with them."""
    from mmtrain.engine.build import join
    from mmtrain.parallel.groups import stop
    from mmtrain.parallel.launch import Launch

    before = dict(os.environ)
    yield join(tiny_plan(), Launch(rank=0, local_rank=0, world_size=1, local_world_size=1))
    stop()
    os.environ.clear()
    os.environ.update(before)
