"""Objects in S3, through boto3. Blocks: never call it from asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from servicekit.errors import NotFound, PermissionDenied, ServiceError, Unavailable
from services.cdc_ingest.domain.records import ChangeFile

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef

_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404"})
_REFUSED = frozenset({"AccessDenied", "AllAccessDisabled", "InvalidObjectState", "403"})


class ObjectStore:
    """Thread-safe."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def fetch(self, file: ChangeFile, max_bytes: int) -> bytes | None:
        """Return the content of the file; None when it has more than `max_bytes`.

        Raises:
            NotFound: S3_OBJECT_MISSING.
            PermissionDenied: S3_ACCESS_DENIED.
            Unavailable: S3_UNAVAILABLE, for any other answer, or none.
        """
        request: GetObjectRequestTypeDef = {"Bucket": file.bucket, "Key": file.key}
        if file.version_id is not None:
            request["VersionId"] = file.version_id
        try:
            answer = self._client.get_object(**request)
            with answer["Body"] as body:
                if answer["ContentLength"] > max_bytes:
                    return None
                return body.read()
        except (BotoCoreError, ClientError) as error:
            raise _raised(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def connect(*, endpoint_url: str | None, region: str, connections: int) -> ObjectStore:
    """Return a store; nothing is sent yet, but files are read."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            connect_timeout=3,
            read_timeout=5,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": 2},
            # Servers other than AWS's have no name for each bucket.
            s3={"addressing_style": "path"} if endpoint_url else None,
        ),
    )
    return ObjectStore(client)


def _raised(error: BotoCoreError | ClientError) -> ServiceError:
    # The code alone: a message may quote the key.
    code = type(error).__name__
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", code))
    if code in _MISSING:
        return NotFound("S3_OBJECT_MISSING", "the file is not there", code=code)
    if code in _REFUSED:
        return PermissionDenied("S3_ACCESS_DENIED", "S3 refuses us the file", code=code)
    return Unavailable("S3_UNAVAILABLE", f"S3 did not do what it was asked: {code}", code=code)
