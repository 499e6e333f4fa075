"""The floor of `ingest_rate`: receive and delete with the same SQS client, and nothing else."""

from __future__ import annotations

import sys
from threading import Thread

from services.cdc_ingest.sqs.queue import connect


def consume(endpoint: str, region: str, queue: str, threads: int) -> None:
    """Receive and delete in so many threads until killed."""
    client = connect(endpoint_url=endpoint, region=region, wait_seconds=1, connections=threads)

    def loop() -> None:
        while True:
            answer = client.receive_message(
                QueueUrl=queue,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
            messages = answer.get("Messages", [])
            if messages:
                client.delete_message_batch(
                    QueueUrl=queue,
                    Entries=[
                        {"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]}
                        for i, message in enumerate(messages)
                    ],
                )

    workers = [Thread(target=loop) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    consume(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
