"""Agents who claim and release, from any of the contenders."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from bench.load import drive, pace

# The cap on connections to PostgreSQL of everything that is compared; ours has fewer.
CONNECTIONS = 24


@dataclass(frozen=True)
class ClaimingAgent:
    """An agent who claims."""

    number: int
    agent_id: str


class Contender(ABC):
    """Something to claim from."""

    name: str
    # Agents whom one claim serves.
    together: int = 1
    # Jobs waiting when a round begins; of ours, people are claimed again.
    backlog: int = 0

    async def prepare(self) -> None:
        """Make ready for a round; not measured."""
        return

    @abstractmethod
    async def claim(self, agent: ClaimingAgent) -> Any:
        """Return what was claimed; raises RuntimeError when there is nothing."""

    @abstractmethod
    async def give_back(self, agent: ClaimingAgent, claimed: Any) -> None:
        """End the claim."""


@dataclass
class Claims:
    """Latencies of the claims alone, in seconds, and the rate of whole turns."""

    rate: float = 0.0
    latencies: list[float] = field(default_factory=list)


async def crowd(contender: Contender, agents: int, seconds: float) -> Claims:
    """Let each agent claim again as soon as they have given back."""
    claims = Claims()
    free = _agents(agents)

    async def turn(_number: int) -> None:
        agent = free.get_nowait()
        await _turn(contender, agent, claims)
        free.put_nowait(agent)

    await contender.prepare()
    load = await drive(turn, in_flight=agents // contender.together, seconds=seconds)
    claims.rate = load.rate * contender.together
    return claims


async def paced(
    contender: Contender, agents: int, turns_per_second: float, seconds: float
) -> Claims:
    """Let the agents claim at a steady pace, one after the other."""
    claims = Claims()
    free = _agents(agents)

    async def turn(_number: int) -> None:
        agent = await free.get()
        await _turn(contender, agent, claims)
        free.put_nowait(agent)

    await contender.prepare()
    claims.rate = (await pace(turn, per_second=turns_per_second, seconds=seconds)).rate
    return claims


async def _turn(contender: Contender, agent: ClaimingAgent, claims: Claims) -> None:
    began = time.perf_counter()
    claimed = await contender.claim(agent)
    claims.latencies.append(time.perf_counter() - began)
    await contender.give_back(agent, claimed)


def _agents(count: int) -> asyncio.Queue[ClaimingAgent]:
    run = uuid.uuid4().hex[:6]
    free: asyncio.Queue[ClaimingAgent] = asyncio.Queue()
    for number in range(count):
        free.put_nowait(ClaimingAgent(number, f"bench-{run}-{number}"))
    return free
