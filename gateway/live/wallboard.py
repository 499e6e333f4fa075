"""The boards of all topics: which figures they read, and from which services."""

from datetime import datetime
from typing import TYPE_CHECKING

from dialler.queue.v1 import queue_pb2

from gateway.live.figures import AllowedQueues, Board, Reading, Screen
from gateway.live.history import History
from gateway.live.topics import AgentsNow, Topic
from gateway.resources.fields import OUTCOMES
from gateway.resources.pipeline import PipelineReader, part
from gateway.resources.queues import Queues
from servicekit.clock import Clock
from servicekit.redis_client import RedisClient

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub


class Boards:
    """All boards, by the topic they belong to."""

    def __init__(
        self,
        queue: "QueueServiceAsyncStub",
        pipeline: PipelineReader,
        redis: RedisClient,
        clock: Clock,
        *,
        figures_seconds: float,
        history_seconds: float,
    ) -> None:
        self._queue = queue
        self._pipeline = pipeline
        self._clock = clock
        self._began = clock.monotonic()
        self._history_seconds = history_seconds
        self._history = History(redis, history_seconds)
        self._queues = Board("queues", self._read_queues, clock, figures_seconds, _narrowed)
        self._wallboard = Board("wallboard", self._read_wallboard, clock, figures_seconds)
        self._pipeline_board = Board("pipeline", self._read_pipeline, clock, figures_seconds)
        self._hour = Board("history", self._read_history, clock, history_seconds)
        self._by_topic: dict[Topic, tuple[Board, ...]] = {
            Topic.ASSIGNMENT: (),
            Topic.QUEUES: (self._queues,),
            Topic.WALLBOARD: (self._wallboard, self._hour),
            Topic.PIPELINE: (self._pipeline_board,),
        }

    def join(self, screen: Screen, topics: frozenset[Topic], queues: AllowedQueues) -> None:
        """Show the topics' figures on the screen from now on; a repeat shows them again."""
        for topic in topics:
            for board in self._by_topic[topic]:
                board.join(screen, queues)

    def leave(self, screen: Screen) -> None:
        """Remove the screen from all boards."""
        for board in self._all():
            board.leave(screen)

    async def keep_hour(self, _now: datetime) -> None:
        """Take a sample for the last hour, whether or not a screen follows."""
        # Right after the start the services may not answer yet.
        if self._clock.monotonic() - self._began >= self._history_seconds * 0.9:
            await self._hour.current()

    async def stop(self) -> None:
        """Stop reading."""
        for board in self._all():
            await board.stop()

    def _all(self) -> list[Board]:
        return [board for boards in self._by_topic.values() for board in boards]

    async def _read_queues(self) -> Reading:
        unavailable: dict[str, str] = {}
        request = queue_pb2.GetQueueStatsRequest()
        stats = await part("queues", lambda: self._queue.GetQueueStats(request), unavailable)
        if stats is None:
            figures = outcomes = missed = None
        else:
            figures = Queues.of(stats).model_dump(mode="json")
            # Plain text: orjson takes no enumeration as a key.
            outcomes = {
                str(OUTCOMES.name(each.outcome) or "unknown"): each.calls
                for each in stats.outcomes_today
            }
            missed = stats.callbacks_missed
        return {
            "figures": figures,
            "outcomes_today": outcomes,
            "callbacks_missed": missed,
            "unavailable": unavailable,
        }

    async def _read_wallboard(self) -> Reading:
        queues = await self._queues.current()
        unavailable = dict(queues["unavailable"])
        request = queue_pb2.ListAgentsRequest()
        answer = await part("agents", lambda: self._queue.ListAgents(request), unavailable)
        agents = None if answer is None else AgentsNow.of(answer.agents).model_dump(mode="json")
        return {**queues, "agents": agents, "unavailable": unavailable}

    async def _read_pipeline(self) -> Reading:
        return (await self._pipeline.read()).model_dump(mode="json")

    async def _read_history(self) -> Reading:
        wallboard = await self._wallboard.current()
        pipeline = await self._pipeline_board.current()
        queues, agents, ingest = wallboard["figures"], wallboard["agents"], pipeline["ingest"]
        latency = ingest["change_latency"] if ingest and ingest["change_latency"]["count"] else None
        ready = {str(it["queue"]): it["ready"] for it in queues["queues"]} if queues else {}
        sample = {
            "at": round(self._clock.now().timestamp()),
            "ready": ready,
            "calls": queues and queues["calls_today"],
            "conversions": queues and queues["conversions_today"],
            "on_call": agents and agents["on_call"],
            "p50": latency and latency["p50_seconds"],
            "p99": latency and latency["p99_seconds"],
            "backlog": ingest and ingest["backlog_messages"],
        }
        return {"samples": await self._history.add(sample)}


def _narrowed(reading: Reading, queues: AllowedQueues) -> Reading:
    """Return only the sizes of the given queues; None for all.

    The day's figures are for supervisors, in a topic of their own.
    """
    figures = reading["figures"]
    kept = None
    if figures is not None:
        kept = [each for each in figures["queues"] if queues is None or each["queue"] in queues]
    return {"queues": kept, "unavailable": reading["unavailable"]}
