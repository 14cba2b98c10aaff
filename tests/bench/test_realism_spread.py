"""The spread of the statistics is measured on rendered defects, the same each time."""

from __future__ import annotations

import numpy as np

from bench.realism_spread import rendered_type, rendered_types, within
from model.quality.realism import SPREAD


def test_a_type_is_rendered_the_same_each_time() -> None:
    one, again = rendered_type(3, 2), rendered_type(3, 2)
    assert len(one) == 2
    assert np.array_equal(one, again)
    assert not np.array_equal(one[0], one[1])


def test_the_spread_in_use_is_that_of_rendered_types() -> None:
    measured = within(list(rendered_types(24, 6)))
    used = np.array(list(SPREAD.values()))
    usual = used > 0.1
    assert (measured[usual] < 2 * used[usual]).all()
    assert (measured[usual] > used[usual] / 2).all()
