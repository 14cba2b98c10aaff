from __future__ import annotations

import torch

from model.diffusion.attention_maps import average_maps


def attention(rows: int, side: int, seed: int) -> torch.Tensor:
    """Cross-attention of two heads over three tokens."""
    scores = torch.randn((rows, 2, side * side, 3), generator=torch.Generator().manual_seed(seed))
    return scores.softmax(-1)


def test_layers_of_all_sizes_make_one_map_per_pair() -> None:
    layers = [attention(4, 8, 0), attention(4, 4, 1), attention(4, 2, 2)]
    averaged = average_maps(layers, 2, (8, 8))
    assert averaged.shape == (2, 8, 8, 3)
    torch.testing.assert_close(averaged.sum(-1), torch.ones(2, 8, 8))


def test_one_layer_at_full_size_is_the_mean_over_its_heads() -> None:
    layer = attention(2, 4, 0)
    torch.testing.assert_close(average_maps([layer], 2, (4, 4)), layer.mean(1).unflatten(1, (4, 4)))


def test_unconditional_rows_do_not_count() -> None:
    layer = attention(4, 4, 0)
    assert torch.equal(average_maps([layer], 2, (4, 4)), average_maps([layer[:2]], 2, (4, 4)))


def test_a_small_layers_places_stay_where_they_are() -> None:
    layer = torch.zeros(1, 1, 4, 1)
    layer[0, 0, 1] = 1
    averaged = average_maps([layer], 1, (8, 8))[0, ..., 0]
    assert averaged[0, 7] == 1
    assert averaged[7, 0] == averaged[7, 7] == averaged[0, 0] == 0
