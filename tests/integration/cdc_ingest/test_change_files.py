"""Files of changes in S3, on moto's server, found through notifications in SQS."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow as arrow
import pyarrow.parquet
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from moto.server import ThreadedMotoServer

from devstack.processes import free_port
from servicekit.errors import Unavailable
from servicekit.lifecycle import Parts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from tests.integration.cdc_ingest.conftest import Bench

pytestmark = pytest.mark.integration

BUCKET = "changes"


@dataclass
class Bucket:
    """A bucket on a server of its own, which may be unavailable."""

    client: "S3Client"
    endpoint_url: str
    server: ThreadedMotoServer

    def put(self, key: str, content: bytes | str) -> str:
        body = content.encode() if isinstance(content, str) else content
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)
        return key


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=url, region_name="eu-west-2")
    # moto's state outlives its servers.
    client.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"}
    )
    yield Bucket(client, url, server)
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()
    server.stop()


def _notification(key: str, size: int | None = None, bucket: str = BUCKET) -> dict[str, Any]:
    """The notification that S3 writes to SQS; `key` is already encoded."""
    record = {
        "eventSource": "aws:s3",
        "eventTime": "2025-06-02T09:00:01.500Z",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": size}},
    }
    return {"Records": [record]}


@asynccontextmanager
async def _running(bench: "Bench", bucket: Bucket, **overrides: Any) -> AsyncIterator[Parts]:
    chosen = {"s3_buckets": BUCKET, "s3_endpoint_url": bucket.endpoint_url, **overrides}
    async with bench.running(**chosen) as parts:
        yield parts


async def test_a_csv_of_changes(bench: "Bench", bucket: Bucket) -> None:
    key = bucket.put(
        "dms/mainapp/claims/20250602-0900.csv",
        "Op,id,user_id,status,BI_id,BI_user_id\nU,9,5,open,9,4\nD,10,6,open,,\n",
    )
    await bench.send(_notification(key))
    async with _running(bench, bucket):
        await bench.emptied()
    assert bench.fakes.user_context.refreshes == [[4, 5, 6]]
    times = bench.fakes.queue.applied[0].timeline
    assert times.captured_at.ToMilliseconds() == 1_748_854_801_500


async def test_a_parquet_of_changes(bench: "Bench", bucket: Bucket) -> None:
    target = io.BytesIO()
    rows = {"Op": ["I", "D"], "id": ["r1", "r2"], "claim_id": arrow.array([9, 10], arrow.uint64())}
    pyarrow.parquet.write_table(arrow.table(rows), target, compression="gzip")
    key = bucket.put("mainapp/claim_requirements/2025/06/02/a.parquet", target.getvalue())
    bench.fakes.user_context.owners[("claims", "9")] = 5
    await bench.send(_notification(key))
    async with _running(bench, bucket):
        await bench.emptied()
    assert [sorted(rows) for rows in bench.fakes.user_context.resolves] == [
        [("claims", "10"), ("claims", "9")]
    ]
    assert bench.fakes.queue.user_ids() == [5]


async def test_keys_that_need_encoding(bench: "Bench", bucket: Bucket) -> None:
    bucket.put("a b/mainapp/users/x=y+z é.csv", "Op,id\nU,1\n")
    bucket.put("a%20b/mainapp/users/c.csv.gz", gzip.compress(b"Op,id\nU,2\n"))
    await bench.send(_notification("a+b/mainapp/users/x%3Dy%2Bz+%C3%A9.csv"))
    await bench.send(
        {
            "detail-type": "Object Created",
            "source": "aws.s3",
            "detail": {
                "bucket": {"name": BUCKET},
                "object": {"key": "a%20b/mainapp/users/c.csv.gz"},
            },
        }
    )
    async with _running(bench, bucket):
        await bench.emptied()
    assert sorted(bench.fakes.queue.user_ids()) == [1, 2]


async def test_what_needs_no_file_asks_for_none(bench: "Bench", bucket: Bucket) -> None:
    """The objects do not exist: a fetch of one would dead-letter the message."""
    await bench.send({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET})
    await bench.send(_notification("dms/mainapp/jobs/a.csv"))
    await bench.send(_notification("reports/a.pdf"))
    async with _running(bench, bucket) as parts, bench.operator(parts) as operator:
        await bench.emptied()
        status = await operator.status()
    assert (status.records_ignored, status.messages_done, status.messages_dead) == (3, 3, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "S3_OBJECT_MISSING"),
        ("I,1,5\n", "S3_FILE_WITHOUT_COLUMN_NAMES"),
        (gzip.compress(b"Op,id,user_id\nU,1,5\n")[:-9], "S3_FILE_DAMAGED"),
    ],
    ids=["missing", "no header", "damaged"],
)
async def test_a_file_that_cannot_be_followed(
    bench: "Bench", bucket: Bucket, content: bytes | str | None, reason: str
) -> None:
    key = "dms/mainapp/claims/a.csv"
    if content is not None:
        bucket.put(key, content)
    await bench.send(_notification(key))
    await bench.send(bench.change("users", {"id": 1}))
    async with _running(bench, bucket):
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert dead["dead_reason"] == reason
    assert bench.fakes.reconciler.reasons == ["cdc_ingest: file-unreadable claims"]
    assert 1 in bench.fakes.queue.user_ids()


async def test_the_good_rows_of_a_bad_file_count(bench: "Bench", bucket: Bucket) -> None:
    key = bucket.put("mainapp/users/a.csv", "Op,id\nU,1\nU,none\nU,3\n")
    await bench.send(_notification(key))
    async with _running(bench, bucket):
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert dead["dead_reason"] == "KEY_NOT_A_NUMBER"
    assert bench.fakes.queue.user_ids() == [1, 3]
    assert bench.fakes.reconciler.reasons == []


async def test_a_file_too_large_asks_for_a_full_run(bench: "Bench", bucket: Bucket) -> None:
    key = bucket.put("mainapp/users/LOAD00000001.csv", "id\n" + "1\n" * 4_000)
    await bench.send(_notification(key))
    # One that is known to be too large is not even asked for: it would not be found.
    await bench.send(_notification("mainapp/claims/LOAD00000001.csv", size=10_000))
    async with (
        _running(bench, bucket, s3_max_object_bytes=1_000) as parts,
        bench.operator(parts) as operator,
    ):
        await bench.emptied()
        assert (await operator.status()).messages_dead == 0
    assert sorted(bench.fakes.reconciler.reasons) == [
        "cdc_ingest: file-too-large claims",
        "cdc_ingest: file-too-large users",
    ]
    assert bench.fakes.queue.user_ids() == []


async def test_only_allowed_buckets_are_read(bench: "Bench", bucket: Bucket) -> None:
    key = bucket.put("mainapp/users/a.csv", "Op,id\nU,1\n")
    await bench.send(_notification(key))
    async with _running(bench, bucket, s3_buckets="another, third"):
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert dead["dead_reason"] == "S3_BUCKET_NOT_ALLOWED"
    assert bench.fakes.reconciler.reasons == ["cdc_ingest: bucket-not-allowed users"]


async def test_while_s3_is_away_only_its_messages_wait(bench: "Bench", bucket: Bucket) -> None:
    key = bucket.put("mainapp/users/a.csv", "Op,id\nU,1\n")
    nowhere = f"http://127.0.0.1:{free_port()}"
    await bench.send(_notification(key))
    async with (
        _running(bench, bucket, s3_endpoint_url=nowhere) as parts,
        bench.operator(parts) as operator,
    ):
        for user_id in range(2, 12):
            await bench.send(bench.change("users", {"id": user_id}))
        await bench.until(lambda: len(bench.fakes.queue.applied) == 10)

        async def retried() -> bool:
            return (await operator.status()).messages_retried >= 2

        await bench.until_async(retried, True)
        assert await bench.depth() == 1
    async with _running(bench, bucket):
        await bench.emptied()
    assert set(bench.fakes.queue.user_ids()) == set(range(1, 12))


async def test_a_file_that_s3_never_gives_is_given_up(bench: "Bench", bucket: Bucket) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    await bench.send(_notification("mainapp/users/a.csv"))
    async with _running(bench, bucket, s3_endpoint_url=nowhere, max_receives=2):
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert (dead["dead_reason"], dead["receive_count"]) == ("S3_UNAVAILABLE", "2")
    assert bench.fakes.reconciler.reasons == ["cdc_ingest: file-given-up users"]


async def test_a_file_given_up_is_dead_only_once_the_full_run_is_asked_for(
    bench: "Bench", bucket: Bucket
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    reconciler = bench.fakes.reconciler
    reconciler.faults.failure = Unavailable("UNAVAILABLE", "unavailable")
    await bench.send(_notification("mainapp/users/a.csv"))
    async with _running(bench, bucket, s3_endpoint_url=nowhere, max_receives=1):
        await bench.until(lambda: reconciler.faults.entered >= 2)
        assert await bench.depth() == 1
        reconciler.faults.failure = None
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert dead["dead_reason"] == "S3_UNAVAILABLE"
    assert reconciler.reasons == ["cdc_ingest: file-given-up users"]


async def test_a_file_with_names_in_capitals_is_read(bench: "Bench", bucket: Bucket) -> None:
    csv = bucket.put("dms/MAINAPP/CLAIMS/a.csv", 'OP,"ID",USER_ID,BI_ID,BI_USER_ID\nU,9,5,9,4\n')
    target = io.BytesIO()
    rows = {"Op": ["I"], "ID": arrow.array([7], arrow.uint64())}
    pyarrow.parquet.write_table(arrow.table(rows), target)
    for key in (csv, bucket.put("dms/MAINAPP/USERS/a.parquet", target.getvalue())):
        await bench.send(_notification(key))
    async with _running(bench, bucket):
        await bench.emptied()
    assert sorted(bench.fakes.queue.user_ids()) == [4, 5, 7]


async def test_a_file_we_may_not_read_says_so(bench: "Bench", bucket: Bucket) -> None:
    async def refuse(_: web.Request) -> web.Response:
        text = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        return web.Response(status=403, text=text, content_type="application/xml")

    app = web.Application()
    app.router.add_get("/{path:.*}", refuse)
    async with TestServer(app) as server:
        await bench.send(_notification("mainapp/users/a.csv"))
        url = str(server.make_url("/"))
        async with _running(bench, bucket, s3_endpoint_url=url, max_receives=2):
            await bench.emptied()
            (dead,) = await bench.dead_letters()
    assert (dead["dead_reason"], dead["receive_count"]) == ("S3_ACCESS_DENIED", "2")
    assert bench.fakes.reconciler.reasons == ["cdc_ingest: file-given-up users"]


async def test_a_stop_while_files_are_read_gives_the_message_back(
    bench: "Bench", bucket: Bucket
) -> None:
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()[:2]
    await bench.send(_notification("mainapp/users/a.csv"))
    overrides = {"s3_endpoint_url": f"http://{host}:{port}", "visibility_seconds": 600}
    async with (
        _running(bench, bucket, **overrides) as parts,
        bench.operator(parts) as operator,
    ):

        async def is_hidden() -> bool:
            return (await operator.status()).backlog_messages == 0

        await bench.until_async(is_hidden, True)
    await bench.seen_by_others()
    silent.close()
    await silent.wait_closed()
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
