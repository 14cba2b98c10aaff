"""The most that tensors took on a device."""

from __future__ import annotations

import pytest
import torch

from model.runtime.cuda_memory import count_anew, forget_most, most_taken

MB = 2**20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU's allocator does not count")
def test_the_most_is_kept_over_a_measurement_until_it_is_forgotten() -> None:
    device = torch.device("cuda", 0)
    forget_most(device)
    before = torch.cuda.memory_allocated(device)
    torch.empty(64 * MB, dtype=torch.uint8, device=device)
    count_anew(device)
    assert torch.cuda.max_memory_allocated(device) == before
    assert most_taken(device) == before + 64 * MB
    forget_most(device)
    assert most_taken(device) == before
