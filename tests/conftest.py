"""Fixtures for every test: real defect photographs where they are at hand, and a tiny base model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# torch and huggingface_hub read these once: tiny networks are fastest on one thread, threads that wait sleep (where the
# cores are taken, those that spin take twenty times as long), and no test downloads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Where a shell starts the tests in the background, Ctrl-C is ignored, and so it would be by every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on the machine, so it is pytest-timeout that stops what hangs.
settings.register_profile("pairforge", deadline=None)
settings.load_profile("pairforge")

pytest_plugins = ["tests.support.left_out", "tests.support.servers"]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def magnetic_tile() -> Path:
    """The folder with the Magnetic-Tile photographs and masks; the test is skipped where it is not at hand."""
    default = ROOT.parent / "shared" / "data" / "magnetic-tile"
    folder = Path(os.environ.get("PAIRFORGE_TEST_DATA", default))
    if not (folder / "splits.json").is_file():
        pytest.skip(f"no Magnetic-Tile data in {folder}; name its folder in PAIRFORGE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random base with epsilon prediction; read only, it is shared by the session."""
    from tests.support.tiny_base import build_tiny_base

    return build_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-epsilon")


@pytest.fixture(scope="session")
def tiny_sd_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_base`, in the exact format of Stable Diffusion 1.5, of fewer channels."""
    from tests.support.tiny_base import build_tiny_base

    return build_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-sd", like_sd=True)


@pytest.fixture(scope="session")
def tiny_v_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_base`, with v-prediction and zero terminal signal-to-noise ratio."""
    from tests.support.tiny_base import build_tiny_base

    return build_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-v", prediction_type="v_prediction")
