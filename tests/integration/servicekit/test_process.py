"""A whole process under `lifecycle.run`: start, signals, exit codes and what it prints."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import httpx

from tests.fakes import waiting

PROGRAM = """
import asyncio
import sys

import grpc
from pydantic import Field, SecretStr

from servicekit.lifecycle import Closing, Parts, run
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    model_config = settings_config("SAMPLE_")
    api_key: SecretStr = Field(description="Key of the upstream.")
    behaviour: str = "serve"


async def slow(request, context):
    await context.send_initial_metadata(())
    await asyncio.sleep(0.5)
    return b"finished"


def register(server):
    handlers = {"Slow": grpc.unary_unary_rpc_method_handler(slow)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s.S", handlers),))


class Stuck:
    async def start(self):
        sys.stdout.write("starting\\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    async def stop(self):
        pass


class Broken:
    async def start(self):
        raise ValueError(" ".join(("Jane", "Example")))

    async def stop(self):
        pass


def build(settings):
    async def close():
        pass

    if settings.behaviour == "stuck":
        return Stuck()
    if settings.behaviour == "broken":
        return Broken()
    return Parts(Closing(close), GrpcServer(settings, "sample", register, ("s.S",)))


run(build, Settings)
"""


@asynccontextmanager
async def process(folder: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    program = folder / "sample.py"
    program.write_text(PROGRAM)
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def next_event(running: asyncio.subprocess.Process) -> dict[str, object]:
    assert running.stdout is not None
    async with waiting.limit(30):
        line = await running.stdout.readline()
    event: dict[str, object] = json.loads(line)
    return event


async def ended(running: asyncio.subprocess.Process) -> tuple[list[dict[str, object]], str]:
    async with waiting.limit(30):
        out, err = await running.communicate()
    return [json.loads(line) for line in out.splitlines()], err.decode()


async def test_sigterm_finishes_the_call_in_progress_and_exits_0(tmp_path: Path) -> None:
    async with process(tmp_path, SAMPLE_API_KEY="k", SAMPLE_METRICS_PORT="0") as running:
        listening = await next_event(running)
        assert listening["event"] == "listening"
        async with grpc.aio.insecure_channel(str(listening["address"])) as channel:
            call = channel.unary_unary("/s.S/Slow", None, None)(b"", timeout=10)
            await call.initial_metadata()
            running.send_signal(signal.SIGTERM)
            assert await call == b"finished"
        events, _ = await ended(running)
    assert [event["event"] for event in events] == ["stopping", "stopped"]
    assert running.returncode == 0
    assert {"ts", "level", "service", "event"} <= set(listening)


async def test_metrics_are_served(tmp_path: Path) -> None:
    async with process(tmp_path, SAMPLE_API_KEY="k", SAMPLE_METRICS_PORT="0") as running:
        listening = await next_event(running)
        async with grpc.aio.insecure_channel(str(listening["address"])) as channel:
            await channel.unary_unary("/s.S/Slow", None, None)(b"", timeout=10)
        async with httpx.AsyncClient() as client:
            page = (await client.get(f"http://{listening['metrics']}/metrics")).text
        running.send_signal(signal.SIGINT)
        await ended(running)
    assert 'dialler_grpc_server_seconds_count{code="OK",method="/s.S/Slow"} 1.0' in page
    assert running.returncode == 0


async def test_missing_setting_is_named_in_one_line(tmp_path: Path) -> None:
    async with process(tmp_path) as running:
        events, err = await ended(running)
    assert err == "cannot start: SAMPLE_API_KEY is not set (Key of the upstream.)\n"
    assert events == []
    assert running.returncode == 78


async def test_wrong_setting_is_named_without_its_value(tmp_path: Path) -> None:
    environment = {"SAMPLE_API_KEY": "k", "SAMPLE_GRPC_PORT": "secret"}
    async with process(tmp_path, **environment) as running:
        _, err = await ended(running)
    assert err.startswith("cannot start: SAMPLE_GRPC_PORT is not valid: ")
    assert err.count("\n") == 1
    assert "secret" not in err
    assert running.returncode == 78


async def test_a_protocol_that_traces_cannot_be_sent_by_is_named_in_one_line(
    tmp_path: Path,
) -> None:
    environment = {
        "SAMPLE_API_KEY": "k",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
    }
    async with process(tmp_path, **environment) as running:
        events, err = await ended(running)
    assert err == (
        "cannot start: OTEL_EXPORTER_OTLP_TRACES_PROTOCOL and OTEL_EXPORTER_OTLP_PROTOCOL"
        " must be grpc or http/protobuf\n"
    )
    assert events == []
    assert running.returncode == 78


async def test_sigterm_during_the_start_is_obeyed(tmp_path: Path) -> None:
    async with process(tmp_path, SAMPLE_API_KEY="k", SAMPLE_BEHAVIOUR="stuck") as running:
        assert running.stdout is not None
        assert await running.stdout.readline() == b"starting\n"
        running.send_signal(signal.SIGTERM)
        events, _ = await ended(running)
    assert [event["event"] for event in events] == ["stopping", "stopped"]
    assert running.returncode == 0


async def test_failed_start_exits_1_without_the_text_of_a_foreign_error(tmp_path: Path) -> None:
    async with process(tmp_path, SAMPLE_API_KEY="k", SAMPLE_BEHAVIOUR="broken") as running:
        events, err = await ended(running)
    (event,) = events
    assert event["event"] == "start_failed"
    assert event["error"] == "ValueError"
    assert "sample.py" in str(event["exception"])
    assert "Jane Example" not in json.dumps(events) + err
    assert running.returncode == 1


async def test_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    holder = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = holder.sockets[0].getsockname()[1]
    async with (
        holder,
        process(tmp_path, SAMPLE_API_KEY="k", SAMPLE_GRPC_PORT=str(port)) as running,
    ):
        events, _ = await ended(running)
    (event,) = events
    assert event["error"] == f"ADDRESS_TAKEN: cannot listen on 127.0.0.1:{port}"
    assert "exception" not in event
    assert running.returncode == 1
