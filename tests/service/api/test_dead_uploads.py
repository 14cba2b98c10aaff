"""What a killed API left on the disk of uploads is deleted, at the start and before the space is looked at."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from service.core.settings import Settings
from tests.service.api.conftest import serving
from tests.service.api.uploads import pairs
from tests.service.core.test_scratch_dirs import holder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def leave(disk: Path) -> Path:
    """What an API that was killed amid an upload of 40 MB leaves."""
    process, name = holder(disk)
    (disk / name / "images-000").write_bytes(bytes(40_000_000))
    process.kill()
    process.communicate()
    return disk / name


def test_a_dead_upload_never_fills_the_disk(
    settings: Settings, new_client: Callable[..., httpx2.Client], disk: Path
) -> None:
    narrow = settings.model_copy(update={"spool_dir": disk, "min_free_bytes": 32_000_000})
    before = leave(disk)
    with serving(narrow) as url:
        assert not before.exists()
        leave(disk)
        assert new_client(url).post("/v1/adapters", data={"name": "a"}, files=pairs()).status_code == 202
    assert list(disk.glob("upload-*")) == []
