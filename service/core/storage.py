"""The object store: any server with the S3 protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

import boto3
from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from service.core.errors import TransientError
from service.core.settings import Settings
from service.core.telemetry import Telemetry

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import BucketLocationConstraintType

_TRANSFER = TransferConfig(multipart_threshold=64 * 2**20, multipart_chunksize=16 * 2**20, max_concurrency=4)
_UNFIT = r'[\x00-\x1f\x7f"/\\]'  # characters not allowed in a file name
_DELETED_AT_ONCE = 1000  # keys in one request, by the protocol
_PASSING = {"RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException"}


class StorageError(TransientError):
    """The object store cannot be reached or fails, after several tries."""


class MissingObject(KeyError):  # noqa: N818  as the KeyError it is
    """No object has this key."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's key and its size in bytes."""

    key: str
    size: int


class ObjectStore:
    """A bucket of the object store. Methods are thread-safe, and each may raise `StorageError`.

    Args:
        telemetry: counts and times the operations.
        tries, timeout: requests per operation, and seconds without an answer after which one is given up.
    """

    def __init__(
        self, settings: Settings, telemetry: Telemetry | None = None, *, tries: int = 5, timeout: float = 30
    ) -> None:
        self._bucket = settings.s3_bucket
        self._region = settings.s3_region
        # Not the default session, because that is not thread-safe.
        session = boto3.session.Session()
        public = settings.s3_public_endpoint_url
        self._client = _client(session, settings, settings.s3_endpoint_url, tries=tries, timeout=timeout)
        self._probe = _client(session, settings, settings.s3_endpoint_url, tries=2, timeout=3)
        self._public = _client(session, settings, public) if public else self._client
        if telemetry is not None:
            telemetry.watch_s3(self._client)
            telemetry.watch_s3(self._probe)

    def put(self, key: str, content: bytes | Path, content_type: str = "application/octet-stream") -> None:
        """Store bytes or a file atomically."""
        with _failures(key):
            if isinstance(content, bytes):
                self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentType=content_type)
            else:
                extra = {"ContentType": content_type}
                self._client.upload_file(str(content), self._bucket, key, ExtraArgs=extra, Config=_TRANSFER)

    def get(self, key: str) -> bytes:
        """Read the bytes of an object.

        Raises:
            MissingObject: no object has this key.
        """
        with _failures(key):
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Read the bytes of an object from `start` up to, and without, `stop`.

        Raises:
            MissingObject: no object has this key.
        """
        with _failures(key):
            wanted = f"bytes={start}-{stop - 1}"
            return self._client.get_object(Bucket=self._bucket, Key=key, Range=wanted)["Body"].read()

    def download(self, key: str, file: Path) -> None:
        """Download an object to a file, which appears when it is complete.

        Raises:
            MissingObject: no object has this key.
        """
        with _failures(key):
            self._client.download_file(self._bucket, key, str(file), Config=_TRANSFER)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """List the objects whose keys begin with `prefix`, sorted by key."""
        with _failures(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [ObjectInfo(found["Key"], found["Size"]) for page in pages for found in page.get("Contents", [])]

    def delete_prefix(self, prefix: str) -> None:
        """Delete the objects whose keys begin with `prefix`.

        Raises:
            ValueError: the prefix is empty, which would delete the whole bucket.
        """
        if not prefix:
            raise ValueError("an empty prefix would delete the whole bucket")
        keys = [found.key for found in self.list(prefix)]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            batch = keys[start : start + _DELETED_AT_ONCE]
            with _failures(prefix):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if errors := answer.get("Errors"):
                raise StorageError(f"{len(errors)} objects under {prefix} were not deleted: {errors[0].get('Message')}")

    def signed_link(self, key: str, *, filename: str, content_type: str, expires: int, head: bool = False) -> str:
        """Sign a link under the public endpoint by which anyone can download an object.

        Args:
            filename: name under which a browser saves it.
            expires: validity in seconds.
            head: sign for a `HEAD` and not a `GET`.
        """
        plain = re.sub(r"[^A-Za-z0-9._ -]", "_", filename)
        named = f'filename="{plain}"'
        if not filename.isascii():
            # In full for clients that support RFC 6266, plain for others.
            named += f"; filename*=UTF-8''{quote(re.sub(_UNFIT, '_', filename), safe='')}"
        parameters = {
            "Bucket": self._bucket,
            "Key": key,
            "ResponseContentDisposition": f"attachment; {named}",
            "ResponseContentType": content_type,
        }
        operation = "head_object" if head else "get_object"
        return self._public.generate_presigned_url(operation, Params=parameters, ExpiresIn=expires)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is missing."""
        if self.ready():
            return
        known = self._client.exceptions
        with _failures(self._bucket), suppress(known.BucketAlreadyExists, known.BucketAlreadyOwnedByYou):
            if self._region == "us-east-1":  # the protocol's default, which must not be sent
                self._client.create_bucket(Bucket=self._bucket)
            else:
                place = cast("BucketLocationConstraintType", self._region)
                self._client.create_bucket(Bucket=self._bucket, CreateBucketConfiguration={"LocationConstraint": place})

    def ready(self) -> bool:
        """Check within a few seconds whether the bucket exists."""
        try:
            with _failures(self._bucket):
                self._probe.head_bucket(Bucket=self._bucket)
        except MissingObject:
            return False
        return True

    def abort_stale_uploads(self, before: datetime) -> int:
        """Abort the multipart uploads begun before a time; returns their number."""
        try:
            stale = [(key, upload) for key, upload, begun in self._unfinished_uploads() if begun < before]
        except MissingObject:  # rclone's answer if there are none
            return 0
        for key, upload in stale:
            with suppress(MissingObject), _failures(key):  # finished meanwhile
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        return len(stale)

    def _unfinished_uploads(self) -> Iterator[tuple[str, str, datetime]]:
        with _failures("unfinished uploads"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket)
            for page in pages:
                for upload in page.get("Uploads", []):
                    yield upload["Key"], upload["UploadId"], upload["Initiated"]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._probe.close()
        self._public.close()


def _client(
    session: boto3.session.Session, settings: Settings, endpoint: str | None, *, tries: int = 5, timeout: float = 30
) -> S3Client:
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        retries={"mode": "standard", "total_max_attempts": tries},
        connect_timeout=min(5, timeout),
        read_timeout=timeout,
        max_pool_connections=32,
        # Many stores other than Amazon's do not support checksums in trailers, the default since 1.36.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    access, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    return session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=access.get_secret_value() if access else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=config,
    )


@contextmanager
def _failures(what: str) -> Iterator[None]:
    try:
        with _unwrapped():
            yield
    except ClientError as error:
        problem = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = problem.get("Code", "")
        if code in {"NoSuchKey", "NoSuchBucket", "NoSuchUpload", "404", "NotFound"}:
            raise MissingObject(what) from error
        if status >= 500 or status == 429 or code in _PASSING:
            raise StorageError(f"the object store failed on {what}: {error}") from error
        raise
    except (BotoCoreError, RetriesExceededError, S3UploadFailedError) as error:
        raise StorageError(f"the object store cannot be reached for {what}: {error}") from error


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise the store's own error, which boto3 wraps for uploads of files in one that has only its text."""
    try:
        yield
    except S3UploadFailedError as error:
        if isinstance(error.__context__, ClientError):
            raise error.__context__ from None
        raise
