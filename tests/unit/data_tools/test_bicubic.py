"""Resizing by the compiled library and by Pillow."""

from random import Random

import numpy as np
import pytest

from data_tools import bicubic


def test_the_library_and_pillow_give_the_same_bytes_for_any_size():
    library = bicubic.compiled()
    if library is None:
        pytest.skip("set-up found no compiler, or this processor has no AVX2: Pillow does it all")
    rng, drawn = np.random.default_rng(0), Random(0)
    for _ in range(150):
        width, height = drawn.randint(1, 300), drawn.randint(1, 300)
        size = max(1, int(width * drawn.uniform(0.05, 1.2))), max(1, int(height * drawn.uniform(0.05, 1.2)))
        pixels = rng.integers(0, 256, (height, width, 4), np.uint8)
        assert np.array_equal(bicubic._by_library(library, pixels, size), bicubic._by_pillow(pixels, size)), size


@pytest.mark.parametrize("is_compiled", [True, False])
def test_an_image_keeps_its_mean_and_a_plain_one_its_color(is_compiled, monkeypatch):
    if not is_compiled:
        monkeypatch.setattr(bicubic, "compiled", lambda: None)
    plain = np.full((90, 120, 4), 77, np.uint8)
    assert np.array_equal(bicubic.resize(plain, (40, 30)), np.full((30, 40, 4), 77))
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 4))
    assert abs(float(bicubic.resize(ramp, (50, 25)).mean()) - float(ramp.mean())) < 0.5
    assert bicubic.resize(ramp, (200, 100)) is ramp
