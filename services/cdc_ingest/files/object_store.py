"""Objects in S3, through boto3. Blocks: not to be called on the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from servicekit.errors import NotFound, PermissionDenied, Unavailable
from services.cdc_ingest.domain.formats.records import ChangeFile

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
            Unavailable: S3_UNAVAILABLE, for any other error or no answer.
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
            # The message of the error may quote the key: only the code is used.
            code = type(error).__name__
            if isinstance(error, ClientError):
                code = str(error.response.get("Error", {}).get("Code", code))
            if code in _MISSING:
                raise NotFound("S3_OBJECT_MISSING", "the file is not there", code=code) from error
            if code in _REFUSED:
                text = "S3 denies access to the file"
                raise PermissionDenied("S3_ACCESS_DENIED", text, code=code) from error
            text = f"S3 failed: {code}"
            raise Unavailable("S3_UNAVAILABLE", text, code=code) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def connect(*, endpoint_url: str | None, region: str, connections: int) -> ObjectStore:
    """Return a store. Reads configuration files and sends nothing."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            connect_timeout=3,
            read_timeout=5,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": 2},
            # Servers other than those of AWS have no host name for each bucket.
            s3={"addressing_style": "path"} if endpoint_url else None,
        ),
    )
    return ObjectStore(client)
