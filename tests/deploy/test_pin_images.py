"""The digests of other people's images are written where their names stand, and nowhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from deploy.pin_images import FILES, IMAGE, pinned

ROOT = Path(__file__).resolve().parents[2]
DIGEST, NEWER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"

DOCKER = """#!/bin/sh
test "$1 $2 $3" = "buildx imagetools inspect" || exit 1
echo "$4" >> asked.txt
echo sha256:%s
"""


def test_each_image_of_others_has_an_exact_version() -> None:
    found = {name: IMAGE.findall((ROOT / name).read_text()) for name in FILES}
    assert all(found.values())
    for image in {image for images in found.values() for image in images}:
        assert re.search(r":v?\d+\.\d+\.\d+", image), image
    # A server and what the runbook runs beside it are of one version.
    named = {image.partition(":")[0] for images in found.values() for image in images}
    assert len(named) == len({image for images in found.values() for image in images})


def test_a_digest_is_added_and_an_older_one_replaced() -> None:
    text = "image: docker.io/valkey/valkey:8.1.10\nARG A=ghcr.io/a/b:0.1\nimage: pairforge/api:0.1.0\n"
    once = pinned(text, lambda _: DIGEST)
    assert once == text.replace("8.1.10", f"8.1.10@{DIGEST}").replace("b:0.1", f"b:0.1@{DIGEST}")
    assert pinned(once, lambda _: NEWER) == once.replace(DIGEST, NEWER)


def test_each_registry_is_asked_once_and_the_files_are_changed(tmp_path: Path) -> None:
    for name in (*FILES, "deploy/pin_images.py"):
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER % ("1" * 64))
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "deploy/pin_images.py"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert len(asked) == len(set(asked)) > 5
    for name in FILES:
        before, after = (ROOT / name).read_text(), (tmp_path / name).read_text()
        assert after == pinned(before, lambda _: DIGEST)
