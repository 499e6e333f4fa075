import { expect, test, vi } from "vitest";

import { ConnectionError, DiallerClient, ProblemError, WriteKeys } from "../src/index.js";
import type { Fetch } from "../src/transport.js";

type Answer = (request: Request) => Response | Promise<Response>;

/** A gateway that gives these answers in turn, and what it was asked. */
function gateway(...answers: Answer[]): { fetch: Fetch; asked: Request[] } {
  const asked: Request[] = [];
  const fetch: Fetch = async (request) => {
    asked.push(request.clone());
    const answer = answers.shift();
    if (!answer) throw new Error("asked once too often");
    return answer(request);
  };
  return { fetch, asked };
}

const PROBLEM = {
  type: "urn:dialler:problem:x",
  title: "X",
  detail: "why",
  instance: "/v1",
  reason: "X_REASON",
  metadata: { queue: "callbacks" },
  trace_id: "0af7651916cd43dd8448eb211c80319c",
};

function problem(status: number, headers: Record<string, string> = {}): Answer {
  return () => Response.json({ ...PROBLEM, status }, { status, headers });
}

const lost: Answer = () => Promise.reject(new TypeError("fetch failed"));
const claimed: Answer = () =>
  Response.json({ assignment: null, already_held: false, empty: null, rejected_by_live_check: 0 });

function client(fetch: Fetch, more: { retryBudgetMs?: number; timeoutMs?: number } = {}) {
  let issued = 0;
  const token = async (): Promise<string> => `token-${(issued += 1)}`;
  return new DiallerClient({ baseUrl: "http://gateway.test", fetch, token, ...more });
}

test("a write keeps its key over every attempt, and each attempt has a fresh token", async () => {
  const { fetch, asked } = gateway(
    problem(429, { "retry-after": "0" }),
    lost,
    problem(503, { "retry-after": "0" }),
    claimed,
  );
  await client(fetch).claimNext({ queues: ["callbacks"] });
  const keys = asked.map((each) => each.headers.get("idempotency-key"));
  expect(new Set(keys).size).toBe(1);
  expect(keys[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const tokens = asked.map((each) => each.headers.get("authorization"));
  expect(tokens).toEqual(["Bearer token-1", "Bearer token-2", "Bearer token-3", "Bearer token-4"]);
  const bodies = await Promise.all(asked.map((each) => each.json()));
  expect(bodies).toEqual(Array(4).fill({ queues: ["callbacks"] }));
});

test("two writes have two keys", async () => {
  const { fetch, asked } = gateway(claimed, claimed);
  await client(fetch).claimNext();
  await client(fetch).claimNext();
  const keys = asked.map((each) => each.headers.get("idempotency-key"));
  expect(new Set(keys).size).toBe(2);
});

test("Retry-After is waited for, and what would take longer than the budget is not", async () => {
  const began = performance.now();
  const short = gateway(problem(429, { "retry-after": "0.3" }), claimed);
  await client(short.fetch).claimNext();
  expect(performance.now() - began).toBeGreaterThanOrEqual(295);

  const long = gateway(problem(429, { "retry-after": "30" }));
  const error = await client(long.fetch).claimNext().catch((each: unknown) => each);
  expect(error).toBeInstanceOf(ProblemError);
  expect(error).toMatchObject({ status: 429, retryAfterMs: 30_000, isAmbiguous: false });
});

test("what fits into the budget is waited for, however far it would be spread", async () => {
  const random = vi.spyOn(Math, "random").mockReturnValue(0.99);
  try {
    const began = performance.now();
    const { fetch, asked } = gateway(problem(429, { "retry-after": "0.3" }), claimed);
    await client(fetch, { retryBudgetMs: 500 }).claimNext();
    expect(asked).toHaveLength(2);
    // Spread as far as the budget goes.
    expect(performance.now() - began).toBeGreaterThanOrEqual(490);
  } finally {
    random.mockRestore();
  }
});

test("a problem carries its reason, trace and metadata, and is not asked for twice", async () => {
  const { fetch, asked } = gateway(problem(409));
  const error = await client(fetch).release("a").catch((each: unknown) => each);
  expect(error).toMatchObject({
    name: "ProblemError",
    status: 409,
    reason: "X_REASON",
    traceId: "0af7651916cd43dd8448eb211c80319c",
    metadata: { queue: "callbacks" },
    fields: [],
  });
  expect(asked).toHaveLength(1);
});

test("an error page of a proxy is a problem too", async () => {
  const { fetch } = gateway(() => new Response("<h1>Bad gateway</h1>", { status: 502 }));
  const error = await client(fetch).queues().catch((each: unknown) => each);
  expect(error).toMatchObject({ name: "ProblemError", status: 502, reason: "HTTP_502" });
});

test("without an answer there is a ConnectionError, after no more than the budget", async () => {
  const { fetch, asked } = gateway(lost, lost, lost, lost);
  const error = await client(fetch).queues().catch((each: unknown) => each);
  expect(error).toBeInstanceOf(ConnectionError);
  expect(error).toMatchObject({ reason: "UNREACHABLE", isAmbiguous: true });
  expect(asked).toHaveLength(4);

  const stingy = gateway(lost);
  await expect(client(stingy.fetch, { retryBudgetMs: 0 }).queues()).rejects.toThrow(ConnectionError);
});

test("a write without a key is not repeated", async () => {
  const { fetch, asked } = gateway(problem(503, { "retry-after": "0" }));
  const { api } = client(fetch);
  const { response } = await api.POST("/v1/reconciliations", {
    body: { reason: "test" },
  });
  expect(response.status).toBe(503);
  expect(asked).toHaveLength(1);
});

function hanging(request: Request): Promise<Response> {
  return new Promise((_, reject) => {
    request.signal.addEventListener("abort", () => reject(request.signal.reason as Error));
  });
}

test("an attempt has a time limit, and running out of it is not repeated", async () => {
  const { fetch, asked } = gateway(hanging);
  const error = await client(fetch, { timeoutMs: 50 }).queues().catch((each: unknown) => each);
  expect(error).toMatchObject({ name: "ConnectionError", reason: "TIMEOUT" });
  expect(asked).toHaveLength(1);
});

test("the caller's abort ends an attempt, and the wait for another, with the caller's reason", async () => {
  for (const answer of [hanging, problem(503, { "retry-after": "3" })]) {
    const stop = new AbortController();
    const { fetch } = gateway(answer);
    const asked = client(fetch).queues({ signal: stop.signal });
    setTimeout(() => stop.abort(new Error("agent went home")), 20);
    await expect(asked).rejects.toThrow("agent went home");
  }
});

test("a write left in doubt keeps its key for the next press of the button", async () => {
  const keys = new WriteKeys();
  const seen: string[] = [];
  const write = (fails?: Error) => (key: string) => {
    seen.push(key);
    return fails ? Promise.reject(fails) : Promise.resolve();
  };
  const refused = new ProblemError({
    type: "", title: "", status: 422, detail: "", instance: "", reason: "R", metadata: {},
    trace_id: null,
  });
  const outcome = { assignmentId: "a", outcome: "no_answer" };
  await expect(keys.under(outcome, write(new ConnectionError("TIMEOUT", null)))).rejects.toThrow();
  await keys.under(outcome, write());
  await keys.under(outcome, write());
  await expect(keys.under(outcome, write(refused))).rejects.toThrow();
  await keys.under(outcome, write());
  const [first, second, third, fourth, fifth] = seen;
  expect(second).toBe(first);
  expect(new Set([first, third, fourth, fifth]).size).toBe(3 + Number(third !== fourth));
});

test("a search is a read: it is asked for again after a lost connection", async () => {
  const { fetch, asked } = gateway(lost, () => Response.json({ people: [], is_complete: true }));
  await client(fetch).search({ name: "smi jo" });
  expect(asked).toHaveLength(2);
});

test("only the gateway's own answer means that the agent has no assignment", async () => {
  const free = { ...PROBLEM, status: 404, reason: "NO_LIVE_ASSIGNMENT" };
  const { fetch } = gateway(
    () => Response.json(free, { status: 404 }),
    () => new Response("<h1>Not found</h1>", { status: 404 }),
  );
  expect(await client(fetch).currentAssignment()).toBeNull();
  await expect(client(fetch).currentAssignment()).rejects.toMatchObject({ reason: "HTTP_404" });
});

test("a list of numbers is sent once, as CSV, whatever the browser takes the file for", async () => {
  const { fetch, asked } = gateway(lost, () => Response.json({ lines: 1, added: 1 }));
  const file = new File(["07700 900123\n"], "tps.csv", { type: "application/vnd.ms-excel" });
  const send = () => client(fetch).importPhoneList("tps", file, { isComplete: true });
  await expect(send()).rejects.toThrow(ConnectionError);
  expect(await send()).toMatchObject({ added: 1 });
  expect(asked).toHaveLength(2);
  for (const each of asked) {
    expect([each.method, each.headers.get("content-type")]).toEqual(["PUT", "text/csv"]);
    expect(each.url).toBe("http://gateway.test/v1/phone-lists/tps?is_complete=true");
    expect(await each.text()).toBe("07700 900123\n");
  }
});

test("a stream stays away for as long as the gateway asks", async () => {
  const asked: number[] = [];
  const answer: Fetch = (request) => {
    if (request.method === "POST") return Promise.resolve(Response.json({ ticket: "t" }));
    asked.push(performance.now());
    const headers = { "retry-after": "1" };
    return Promise.resolve(Response.json({ ...PROBLEM, status: 503 }, { status: 503, headers }));
  };
  const stream = client(answer).events({ onEvent: () => undefined });
  await expect.poll(() => asked.length, { timeout: 5_000 }).toBe(2);
  stream.close();
  expect((asked[1] ?? 0) - (asked[0] ?? 0)).toBeGreaterThanOrEqual(995);
});
