"""What keeping freed memory saves: pages that the system clears again and again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from model.runtime.switches import Switch

PLAIN = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""What glibc does by itself at first; later it adapts."""

CODE = """
import resource, sys
from model.runtime.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(15):
    [bytearray(20_000_000) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(what: str, **environment: str) -> int:
    """Pages that a process had to be given for fifteen times the same four blocks of twenty megabytes."""
    done = subprocess.run([sys.executable, "-c", CODE, what], env=environment, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other ways")
def test_freed_memory_is_used_again() -> None:
    assert faults("keep") * 5 < faults("leave", **PLAIN)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other ways")
@pytest.mark.parametrize("chosen", [PLAIN, {"PAIRFORGE_PLAIN": Switch.KEPT_MEMORY}], ids=["by glibc's", "by ours"])
def test_what_the_user_chose_by_variables_stays(chosen: dict[str, str]) -> None:
    assert faults("keep", **chosen) > 5 * faults("keep")
