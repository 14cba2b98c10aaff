"""Adds the digests to the names of the images of others, so that the same bytes are built and run from then on.

    python -m deploy.pin_images

asks each image's registry, by `docker buildx imagetools inspect`, and changes the files below. Run again after a
version was changed, it replaces the old digests. What it has written is the operator's to commit: digests change
whenever the maker of an image builds it anew, and the older ones stay there to be fetched.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FILES = (
    *("docker-compose.yml", "Dockerfile.gpu"),
    *("deploy/Dockerfile.api", "deploy/Dockerfile.servers", "deploy/RUNBOOK.md"),
)

IMAGE = re.compile(r"((?:docker\.io|ghcr\.io|nvcr\.io)/[\w./-]+:v?\d+\.\d[\w.-]*)(?:@sha256:[0-9a-f]{64})?")
"""An image of somebody else: registry, name and version, perhaps with a digest."""


def main() -> None:
    known: dict[str, str] = {}

    def digest(image: str) -> str:
        if image not in known:
            known[image] = ask_registry(image)
            sys.stdout.write(f"{image}@{known[image]}\n")
        return known[image]

    # All registries are asked before anything is written.
    written = {ROOT / name: pinned((ROOT / name).read_text(encoding="utf-8"), digest) for name in FILES}
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")


def pinned(text: str, digest: Callable[[str], str]) -> str:
    """Return the text with the digest behind each image, in place of an older one."""
    return IMAGE.sub(lambda found: f"{found[1]}@{digest(found[1])}", text)


def ask_registry(image: str) -> str:
    """Ask for the digest of an image's index, which stands for all processors, or of its only manifest."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
        raise ValueError(f"{image}: {found!r} is no digest")
    return found


if __name__ == "__main__":
    main()
