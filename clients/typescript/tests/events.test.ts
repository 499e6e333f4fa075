import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { openEventStream, type EventSourceOfGateway } from "../src/events.js";
import { transport } from "../src/transport.js";

const CLIENTS = 40;
const STARTED = Date.UTC(2025, 5, 2);

beforeEach(() => {
  vi.useFakeTimers({ now: STARTED });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function refusal(status: number, seconds: string): Response {
  const problem = { reason: "TOO_MANY_STREAMS", status, detail: "full", metadata: {} };
  return Response.json(problem, { status, headers: { "retry-after": seconds } });
}

/** Open streams that are all refused, and return when each of them asked, in milliseconds. */
function refusedTogether(refuse: () => Promise<Response>): { asked: number[][]; close: () => void } {
  const asked = Array.from({ length: CLIENTS }, (): number[] => []);
  const streams = asked.map((times) => {
    const source: EventSourceOfGateway = {
      url: "http://gateway.test/v1/events",
      fetch: () => {
        times.push(Date.now() - STARTED);
        return refuse();
      },
      ticket: () => Promise.resolve("ticket"),
    };
    return openEventStream(source, { onEvent: () => undefined });
  });
  return { asked, close: () => streams.forEach((each) => each.close()) };
}

/** How many come back within the busiest of so many milliseconds. */
function most(times: readonly number[], within: number): number {
  return Math.max(...times.map((start) => times.filter((t) => t >= start && t < start + within).length));
}

test.each([429, 503])("streams refused together with %i come back spread out", async (status) => {
  const { asked, close } = refusedTogether(() => Promise.resolve(refusal(status, "5")));
  await vi.advanceTimersByTimeAsync(10_000);
  close();
  const second = asked.map((times) => times[1] ?? NaN);
  expect(Math.min(...second)).toBeGreaterThanOrEqual(5_000);
  expect(Math.max(...second) - Math.min(...second)).toBeGreaterThan(2_500);
  expect(most(second, 250)).toBeLessThan(CLIENTS / 3);
});

test("what a gateway asks for is waited for, though the network has come back", async () => {
  const browser = new EventTarget();
  vi.stubGlobal("addEventListener", browser.addEventListener.bind(browser));
  vi.stubGlobal("removeEventListener", browser.removeEventListener.bind(browser));
  const { asked, close } = refusedTogether(() => Promise.resolve(refusal(503, "5")));
  await vi.advanceTimersByTimeAsync(100);
  browser.dispatchEvent(new Event("online"));
  await vi.advanceTimersByTimeAsync(4_800);
  close();
  expect(asked.flat().filter((time) => time > 0)).toEqual([]);
});

test("a network that comes back does not bring all clients at once", async () => {
  const browser = new EventTarget();
  vi.stubGlobal("addEventListener", browser.addEventListener.bind(browser));
  vi.stubGlobal("removeEventListener", browser.removeEventListener.bind(browser));
  const { asked, close } = refusedTogether(() => Promise.reject(new TypeError("no network")));
  await vi.advanceTimersByTimeAsync(100);
  browser.dispatchEvent(new Event("online"));
  await vi.advanceTimersByTimeAsync(2_000);
  close();
  const second = asked.map((times) => times[1] ?? NaN);
  expect(Math.max(...second) - Math.min(...second)).toBeGreaterThan(1_000);
});

test("requests refused together come back spread out", async () => {
  const times: number[] = [];
  const send = transport({
    fetch: () => {
      times.push(Date.now() - STARTED);
      return Promise.resolve(refusal(429, "1"));
    },
    token: undefined,
    timeoutMs: 60_000,
    retryBudgetMs: 2_001,
  });
  const asking = Array.from({ length: CLIENTS }, () => send(new Request("http://gateway.test/")));
  await vi.advanceTimersByTimeAsync(2_000);
  const second = times.filter((time) => time > 0).slice(0, CLIENTS);
  expect(Math.min(...second)).toBeGreaterThanOrEqual(1_000);
  expect(Math.max(...second) - Math.min(...second)).toBeGreaterThan(500);
  expect(most(second, 100)).toBeLessThan(CLIENTS / 2);
  await vi.advanceTimersByTimeAsync(10_000);
  await Promise.all(asking);
});

test("a stream ends when it is closed and waits when it is silent, whatever fetch makes of it", async () => {
  let opened = 0;
  const source: EventSourceOfGateway = {
    url: "http://gateway.test/v1/events",
    // As an engine that has lost the signal: the body goes on.
    fetch: () => {
      opened += 1;
      return Promise.resolve(new Response(new ReadableStream<Uint8Array>()));
    },
    ticket: () => Promise.resolve("ticket"),
  };
  const told: string[] = [];
  const stream = openEventStream(source, {
    onEvent: () => undefined,
    onStatus: (status, error) => told.push(error?.message ?? status),
    silenceMs: 1_000,
  });
  await vi.advanceTimersByTimeAsync(1_000);
  expect(stream.status).toBe("waiting");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(opened).toBe(2);
  stream.close();
  await vi.advanceTimersByTimeAsync(0);
  expect(stream.status).toBe("ended");
  expect(told[0]).toContain("in time");
});
