"""Makes the secrets of docker-compose.yml when it is first started: `make_secrets.py FOLDER`.

FOLDER/credentials      all of them, made once; no other service sees it
FOLDER/<name>-secrets   what one service reads, a file for each secret, written again at every start

Every file can be read by this process's user alone, under which the services run as well.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path


def main() -> None:
    folder = Path(sys.argv[1])
    made = credentials(folder / "credentials" / "credentials.json")
    for name, files in secrets_of_services(made).items():
        for file, content in files.items():
            write(folder / f"{name}-secrets" / file, content)


def credentials(path: Path) -> dict[str, str]:
    """Those in the file, which the first call makes."""
    if not path.exists():
        made = {
            "redis_password": secrets.token_urlsafe(32),
            "s3_access_key_id": secrets.token_hex(10),
            "s3_secret_access_key": secrets.token_urlsafe(32),
            "grafana_password": secrets.token_urlsafe(16),
        }
        write(path, json.dumps(made))
    read: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return read


def secrets_of_services(made: dict[str, str]) -> dict[str, dict[str, str]]:
    """Service → file → content."""
    password, access, secret = made["redis_password"], made["s3_access_key_id"], made["s3_secret_access_key"]
    url = f"redis://:{password}@redis:6379/0"
    return {
        "api": {
            "pairforge_redis_url": url,
            "pairforge_s3_access_key_id": access,
            "pairforge_s3_secret_access_key": secret,
        },
        "redis": {"password": password, "redis.conf": f"requirepass {password}\n"},
        "s3": {"access_key_id": access, "secret_access_key": secret},
        "exporter": {"broker_url": url},
        "grafana": {"admin_password": made["grafana_password"]},
    }


def write(path: Path, content: str) -> None:
    """Write a file in one piece, or leave it as it was."""
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


if __name__ == "__main__":
    main()
