"""The HTTP face: one POST route that dispatches on X-Amz-Target."""

import logging
import socket
import uuid
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web

from devstack.sqs.account import Account
from devstack.sqs.errors import SqsError
from devstack.sqs.faults import SqsFaults
from devstack.sqs.message_actions import MessageActions
from devstack.sqs.moves import MoveTasks
from devstack.sqs.parameters import Parameters
from devstack.sqs.queue_actions import QueueActions

_log = logging.getLogger(__name__)

_CONTENT_TYPE = "application/x-amz-json-1.0"
_MAX_REQUEST_BYTES: Final = 8 * 1_048_576
_INTERNAL = b'{"__type":"com.amazonaws.sqs#InternalFailure","message":"Internal failure."}'

Perform = Callable[[Parameters, str], Awaitable[dict[str, Any]]]


class SqsServer:
    """Serves one account on a loopback port; `start`, then use `endpoint_url`, then `stop`."""

    def __init__(self, host: str, port: int, region: str) -> None:
        account = Account(region)
        self.faults = SqsFaults()
        messages = MessageActions(account, self.faults)
        self._actions = _table(messages, QueueActions(account, messages, MoveTasks(account)))
        self._socket = socket.create_server((host, port), backlog=1024)
        self._host = host
        app = web.Application(client_max_size=_MAX_REQUEST_BYTES)
        app.router.add_get("/health", self._health)
        app.router.add_post("/_faults", self._order_faults)
        app.router.add_post("/{path:.*}", self._handle)
        # A poll whose caller has gone away must not take messages with it.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5
        )

    @property
    def endpoint_url(self) -> str:
        """The address for a client's endpoint_url."""
        return f"http://{self._host}:{self._socket.getsockname()[1]}"

    async def start(self) -> None:
        """Begin to accept requests."""
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def stop(self) -> None:
        """Stop accepting, end open polls, close the socket."""
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        name = request.headers.get("X-Amz-Target", "").removeprefix("AmazonSQS.")
        base_url = f"{request.scheme}://{request.host}"
        try:
            perform = self._actions.get(name)
            if perform is None:
                raise SqsError("UnknownOperation", f"The action {name} is not valid.")
            if self.faults.fails_request(name):
                return _respond(_INTERNAL, status=500)
            parameters = Parameters(_parse(await request.read()))
            answer = await perform(parameters, base_url)
        except SqsError as error:
            return _refuse(error)
        except Exception:
            _log.exception("action %s failed", name)
            return _respond(_INTERNAL, status=500)
        return _respond(orjson.dumps(answer), status=200)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _order_faults(self, request: web.Request) -> web.Response:
        wanted = _parse(await request.read())
        self.faults.order(
            str(wanted["action"]),
            requests=int(wanted.get("requests", 0)),
            entries=int(wanted.get("entries", 0)),
        )
        self.faults.refuse(
            max_bytes=wanted.get("max_bytes"),
            text=str(wanted.get("refused_text", "")),
            code=str(wanted.get("refused_code", "InvalidMessageContents")),
        )
        return web.Response(status=204)


def _table(messages: MessageActions, queues: QueueActions) -> dict[str, Perform]:
    plain: dict[str, Callable[[Parameters], Awaitable[dict[str, Any]]]] = {
        "SendMessage": messages.send_message,
        "SendMessageBatch": messages.send_message_batch,
        "ReceiveMessage": messages.receive_message,
        "DeleteMessage": messages.delete_message,
        "DeleteMessageBatch": messages.delete_message_batch,
        "ChangeMessageVisibility": messages.change_message_visibility,
        "ChangeMessageVisibilityBatch": messages.change_message_visibility_batch,
        "DeleteQueue": queues.delete_queue,
        "PurgeQueue": queues.purge_queue,
        "GetQueueAttributes": queues.get_queue_attributes,
        "SetQueueAttributes": queues.set_queue_attributes,
        "TagQueue": queues.tag_queue,
        "UntagQueue": queues.untag_queue,
        "ListQueueTags": queues.list_queue_tags,
        "StartMessageMoveTask": queues.start_message_move_task,
        "ListMessageMoveTasks": queues.list_message_move_tasks,
        "CancelMessageMoveTask": queues.cancel_message_move_task,
    }
    table: dict[str, Perform] = {
        "CreateQueue": queues.create_queue,
        "GetQueueUrl": queues.get_queue_url,
        "ListQueues": queues.list_queues,
        "ListDeadLetterSourceQueues": queues.list_dead_letter_source_queues,
    }
    for name, action in plain.items():
        table[name] = _without_url(action)
    return table


def _without_url(action: Callable[[Parameters], Awaitable[dict[str, Any]]]) -> Perform:
    return lambda parameters, _: action(parameters)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise SqsError("SerializationException", "The request is not valid JSON.") from error
    if not isinstance(document, dict):
        raise SqsError("SerializationException", "The request is not a JSON object.")
    return document


def _refuse(error: SqsError) -> web.Response:
    body = orjson.dumps({"__type": error.json_type, "message": error.message})
    return _respond(body, status=400, query_error=f"{error.query_code};Sender")


def _respond(body: bytes, *, status: int, query_error: str | None = None) -> web.Response:
    headers = {
        "Content-Type": _CONTENT_TYPE,
        "x-amzn-RequestId": str(uuid.uuid4()),
        "x-amz-crc32": str(zlib.crc32(body)),
    }
    if query_error is not None:
        headers["x-amzn-query-error"] = query_error
    return web.Response(body=body, status=status, headers=headers)
