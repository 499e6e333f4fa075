"""The figures of the wallboard, and the boards that screens follow."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from dialler.queue.v1 import queue_pb2
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from gateway.figures import Board, Queues, Reading, Screen
from gateway.history import History
from gateway.pipeline import PipelineReader, part
from gateway.schemas import Moment, moment_in, name_in, outcome_name
from gateway.schemas import Queues as QueueFigures
from gateway.topics import Topic
from servicekit.clock import Clock

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

MOST_AGENTS_LISTED = 200

# Those on a call come first: they are whom a supervisor looks for.
_ORDER = ("on_call", "wrap_up", "available", "break")


class AgentNow(BaseModel):
    """What one agent who is present is doing."""

    agent_id: str
    presence: str
    since: Moment | None
    calls_today: int
    conversions_today: int


class AgentsNow(BaseModel):
    """How many agents are doing what, and who; those gone are left out."""

    present: int
    on_call: int
    available: int
    wrap_up: int
    on_break: int
    listed: list[AgentNow] = Field(max_length=MOST_AGENTS_LISTED)

    @classmethod
    def of(cls, agents: Sequence[queue_pb2.Agent]) -> Self:
        """Return what the messages say."""
        doing = [(each, _presence(each)) for each in agents]
        here = [(each, name) for each, name in doing if name in _ORDER]
        counts = Counter(name for _, name in here)
        here.sort(key=lambda it: (_ORDER.index(it[1]), it[0].agent_id))
        return cls(
            present=len(here),
            on_call=counts["on_call"],
            available=counts["available"],
            wrap_up=counts["wrap_up"],
            on_break=counts["break"],
            listed=[_agent_now(each, name) for each, name in here[:MOST_AGENTS_LISTED]],
        )


class Boards:
    """All boards, by the topic they belong to."""

    def __init__(
        self,
        queue: "QueueServiceAsyncStub",
        pipeline: PipelineReader,
        redis: Redis,
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

    def join(self, screen: Screen, topics: frozenset[Topic], queues: Queues) -> None:
        """Show the topics' figures on the screen from now on; again shows them all again."""
        for topic in topics:
            for board in self._by_topic[topic]:
                board.join(screen, queues)

    def leave(self, screen: Screen) -> None:
        """Forget the screen."""
        for board in self._all():
            board.leave(screen)

    async def keep_hour(self, _now: datetime) -> None:
        """Take a sample for the last hour, whether or not anybody watches."""
        # At first the services may not be there yet.
        if self._clock.monotonic() - self._began >= self._history_seconds * 0.9:
            await self._hour.current()

    async def stop(self) -> None:
        """Read no more."""
        for board in self._all():
            await board.stop()

    def _all(self) -> list[Board]:
        return [board for boards in self._by_topic.values() for board in boards]

    async def _read_queues(self) -> Reading:
        unavailable: dict[str, str] = {}
        request = queue_pb2.GetQueueStatsRequest()
        stats = await part("queues", lambda: self._queue.GetQueueStats(request), unavailable)
        figures = None if stats is None else QueueFigures.of(stats).model_dump(mode="json")
        return {
            "figures": figures,
            "outcomes_today": None if stats is None else _outcomes(stats),
            "callbacks_missed": None if stats is None else stats.callbacks_missed,
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
        now = round(self._clock.now().timestamp())
        return {"samples": await self._history.add(_sample(now, wallboard, pipeline))}


def _sample(now: int, wallboard: Reading, pipeline: Reading) -> dict[str, Any]:
    """Return the few figures that are worth an hour's memory; null for what was not known."""
    queues, agents, ingest = wallboard["figures"], wallboard["agents"], pipeline["ingest"]
    latency = ingest["change_latency"] if ingest and ingest["change_latency"]["count"] else None
    return {
        "at": now,
        "ready": {str(each["queue"]): each["ready"] for each in queues["queues"]} if queues else {},
        "calls": queues and queues["calls_today"],
        "conversions": queues and queues["conversions_today"],
        "on_call": agents and agents["on_call"],
        "p50": latency and latency["p50_seconds"],
        "p99": latency and latency["p99_seconds"],
        "backlog": ingest and ingest["backlog_messages"],
    }


def _narrowed(reading: Reading, queues: Queues) -> Reading:
    """Return the sizes of the queues alone, and only of those given; None for all.

    The company's figures of the day are a supervisor's, and have their own topic.
    """
    figures = reading["figures"]
    kept = None
    if figures is not None:
        kept = [each for each in figures["queues"] if queues is None or each["queue"] in queues]
    return {"queues": kept, "unavailable": reading["unavailable"]}


def _outcomes(stats: queue_pb2.GetQueueStatsResponse) -> dict[str, int]:
    # Plain text: orjson takes no enumeration as a key.
    return {
        str(outcome_name(each.outcome) or "unknown"): each.calls for each in stats.outcomes_today
    }


def _presence(agent: queue_pb2.Agent) -> str:
    if agent.HasField("assignment"):
        return "on_call"
    return name_in(queue_pb2.Presence.Name, "PRESENCE_", agent.presence) or "unspecified"


def _agent_now(agent: queue_pb2.Agent, presence: str) -> AgentNow:
    return AgentNow(
        agent_id=agent.agent_id,
        presence=presence,
        since=moment_in(agent, "presence_since"),
        calls_today=sum(each.calls for each in agent.today.outcomes),
        conversions_today=agent.today.conversions,
    )
