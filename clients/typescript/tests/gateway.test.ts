import { afterAll, beforeAll, expect, test } from "vitest";

import {
  DiallerClient,
  newWriteKey,
  type DiallerError,
  type DiallerEvent,
  type EventStream,
  type EventStreamOptions,
  type Showing,
  type Shown,
  type SnapshotReason,
  type StreamStatus,
} from "../src/index.js";
import { Testbed } from "./testbed.js";

let bed: Testbed;

beforeAll(async () => {
  bed = await Testbed.start();
});
afterAll(async () => {
  await bed.stop();
});

let agents = 0;

/** An agent of this test alone. */
async function newAgent(ttlSeconds?: number): Promise<DiallerClient> {
  const token = await bed.token("agent", `ts-agent-${(agents += 1)}`, ttlSeconds);
  return new DiallerClient({ baseUrl: bed.gateway, token: () => token });
}

async function claim(agent: DiallerClient) {
  const { assignment } = await agent.claimNext();
  if (!assignment) throw new Error("no person can be called");
  return assignment;
}

test("a call from the claim to its outcome, recorded once", async () => {
  const agent = await newAgent();
  expect(await agent.currentAssignment()).toBeNull();
  const assignment = await claim(agent);
  expect(typeof assignment.user_id).toBe("string");
  expect(await agent.currentAssignment()).toMatchObject({ user_id: assignment.user_id });

  const { context } = await agent.context(assignment.user_id);
  expect(context.user?.user_id).toBe(assignment.user_id);
  expect(context.call_state?.state).toBe("assigned");

  const extended = await agent.heartbeat(assignment.assignment_id);
  expect(extended.assignment_id).toBe(assignment.assignment_id);

  const idempotencyKey = newWriteKey();
  const outcome = { outcome: "no_answer", notes: "rang out" } as const;
  const first = await agent.recordOutcome(assignment.assignment_id, outcome, { idempotencyKey });
  const again = await agent.recordOutcome(assignment.assignment_id, outcome, { idempotencyKey });
  expect(again).toEqual(first);
  expect(first.call_state).toMatchObject({ attempts: 1, last_outcome: "no_answer" });

  const late = await agent.heartbeat(assignment.assignment_id).catch((each: unknown) => each);
  expect(late).toMatchObject({ status: 409, reason: "ASSIGNMENT_NOT_LIVE" });
});

test("an unchanged context is not sent again", async () => {
  const agent = await newAgent();
  const { user_id, assignment_id } = await claim(agent);
  const first = await agent.context(user_id);
  const second = await agent.context(user_id, { previous: first });
  expect(second.context).toBe(first.context);
  await bed.changePhone(user_id, "07700 900777");
  await expect
    .poll(async () => (await agent.context(user_id, { previous: second })).context.user)
    .toMatchObject({ phone_number: "+447700900777" });
  await agent.release(assignment_id, { reason: "agent_leaving" });
});

test("problems have their status, reason and trace", async () => {
  const agent = await newAgent();
  const stranger = await agent.context("999999999").catch((each: unknown) => each);
  expect(stranger).toMatchObject({ status: 403, reason: "PERSON_NOT_YOURS" });
  expect((stranger as { traceId: string }).traceId).toMatch(/^[0-9a-f]{32}$/);

  const forbidden = await agent
    .unwrap(agent.api.GET("/v1/pipeline"))
    .catch((each: unknown) => each);
  expect(forbidden).toMatchObject({ status: 403 });

  const untrusted = new DiallerClient({ baseUrl: bed.gateway, token: () => "not.a.token" });
  const refused = await untrusted.queues().catch((each: unknown) => each);
  expect(refused).toMatchObject({ status: 401, isSessionOver: true });

  const wrong = await agent
    .recordOutcome(newWriteKey(), { outcome: "call_back", callback_at: "tomorrow" })
    .catch((each: unknown) => each);
  expect(wrong).toMatchObject({ status: 422, fields: [{ location: "body.callback_at" }] });
});

test("an agreed callback, the person's calls, and a person found by name", async () => {
  const agent = await newAgent();
  const { assignment_id, user_id } = await claim(agent);
  const callback_at = new Date(Date.now() + 86_400_000).toISOString();
  const { last_name } = (await agent.context(user_id)).context.user ?? {};
  await agent.recordOutcome(assignment_id, { outcome: "call_back", callback_at, notes: "at work" });
  const { callbacks } = await agent.callbacks({ state: "open" });
  expect(callbacks).toMatchObject([{ user_id, state: "open" }]);

  const { people } = await agent.search({ name: last_name ?? "" });
  expect(people.map((each) => each.user_id)).toContain(user_id);
  const { calls } = await agent.calls(user_id);
  expect(calls).toMatchObject([{ outcome: "call_back", notes: "at work", assignment_id }]);
});

test("an objection reaches the agent on the call, and one about a bare number is taken", async () => {
  const agent = await newAgent();
  const { user_id } = await claim(agent);
  const told: DiallerEvent[] = [];
  let isOpen = false;
  const stream = agent.events({
    onEvent: (event) => told.push(event),
    onSnapshot: () => (isOpen = true),
  });
  await expect.poll(() => isOpen).toBe(true);
  const token = await bed.token("supervisor", "ts-supervisor");
  const supervisor = new DiallerClient({ baseUrl: bed.gateway, token: () => token });
  const objection = await supervisor.recordObjection({ user_id, notes: "asked by letter" });
  expect(objection.call_state).toMatchObject({ user_id });
  await expect
    .poll(() => told.find((each) => each.type === "objection_recorded"))
    .toMatchObject({ user_id });
  stream.close();

  const stranger = await agent.recordObjection({ phone: "07700 900998", notes: "a stranger" });
  expect(stranger.call_state).toBeNull();
  const found = await supervisor.unwrap(
    supervisor.api.POST("/v1/suppressions/search", { body: { phone: "+44 7700 900998" } }),
  );
  expect(found.suppressions).toMatchObject([
    { suppression_id: stranger.suppression_id, user_id: null, phone_number: "+447700900998" },
  ]);
});

test("the queues page by page, and what has no method of its own", async () => {
  const agent = await newAgent();
  const { queues } = await agent.queues();
  expect(queues.map((each) => each.queue)).toContain("unsigned_users");
  const page = await agent.entries("unsigned_users", { pageSize: 2 });
  expect(page.entries).toHaveLength(2);
  const next = await agent.entries("unsigned_users", {
    pageSize: 2,
    ...(page.next_page_token !== null && { pageToken: page.next_page_token }),
  });
  expect(next.entries[0]?.user_id).not.toBe(page.entries[0]?.user_id);

  const token = await bed.token("supervisor", "ts-supervisor");
  const supervisor = new DiallerClient({ baseUrl: bed.gateway, token: () => token });
  const pipeline = await supervisor.unwrap(supervisor.api.GET("/v1/pipeline"));
  expect(pipeline.cache?.hits).toBeTypeOf("number");
});

/** Everything a stream says, and promises of what it has yet to say. */
class Listener {
  readonly events: DiallerEvent[] = [];
  readonly shown: Showing[] = [];
  readonly snapshots: SnapshotReason[] = [];
  readonly statuses: StreamStatus[] = [];
  readonly errors: DiallerError[] = [];
  readonly stream: EventStream;

  constructor(client: DiallerClient, options: Partial<EventStreamOptions> = {}) {
    this.stream = client.events({
      ...options,
      onEvent: (event) => this.events.push(event),
      onShow: (showing) => this.shown.push(showing),
      onSnapshot: (why) => this.snapshots.push(why),
      onStatus: (status, error) => {
        this.statuses.push(status);
        if (error) this.errors.push(error);
      },
    });
  }

  async live(): Promise<this> {
    await expect.poll(() => this.stream.status, { timeout: 15_000 }).toBe("live");
    return this;
  }

  /** The latest that a topic shows. */
  latest<Name extends keyof Shown>(name: Name): Shown[Name] | undefined {
    return this.shown.findLast((it) => it.name === name)?.shown as Shown[Name] | undefined;
  }

  async saw(type: DiallerEvent["type"], userId: string): Promise<void> {
    const wanted = (each: DiallerEvent): boolean => each.type === type && each.user_id === userId;
    await expect.poll(() => this.events.some(wanted), { timeout: 15_000 }).toBe(true);
  }
}

test("a signature in MySQL reaches the agent on the call", async () => {
  const agent = await newAgent();
  const { user_id, assignment_id } = await claim(agent);
  const listener = await new Listener(agent).live();
  expect(listener.snapshots).toEqual(["opened"]);
  await bed.sign(user_id);
  await listener.saw("context_changed", user_id);
  await expect
    .poll(async () => (await agent.context(user_id)).context.user?.has_signature)
    .toBe(true);
  await agent.recordOutcome(assignment_id, { outcome: "completed_form" });
  await listener.saw("assignment_ended", user_id);
  listener.stream.close();
  await expect.poll(() => listener.stream.status).toBe("ended");
});

test("a restart of the gateway loses no event", async () => {
  const agent = await newAgent();
  const { user_id, assignment_id } = await claim(agent);
  const listener = await new Listener(agent).live();
  await bed.stopService("gateway");
  await expect.poll(() => listener.stream.status).not.toBe("live");
  const missed = listener.events.length;
  await bed.changePhone(user_id, "07700 900888");
  await bed.restartService("gateway");
  await listener.saw("context_changed", user_id);
  expect(listener.events.length).toBeGreaterThan(missed);
  expect(listener.snapshots).toEqual(["opened"]);
  expect(listener.errors.every((each) => each.isAmbiguous)).toBe(true);
  await agent.release(assignment_id);
  listener.stream.close();
}, 40_000);

test("after a gap a snapshot is asked for", async () => {
  const agent = await newAgent();
  const listener = await new Listener(agent).live();
  await bed.forgetEvents();
  const { user_id, assignment_id } = await claim(agent);
  await expect.poll(() => listener.snapshots, { timeout: 15_000 }).toContain("reset");
  await agent.release(assignment_id);
  await listener.saw("assignment_ended", user_id);
  listener.stream.close();

  const stranger = await new Listener(agent, { lastEventId: "elsewhere:1-0" }).live();
  expect(stranger.snapshots).toEqual(["reset"]);
  stranger.stream.close();
}, 40_000);

test("topics show what an agent holds and how long the queues are", async () => {
  const agent = await newAgent();
  const { user_id, assignment_id } = await claim(agent);
  const listener = await new Listener(agent, { topics: ["assignment", "queues"] }).live();
  await expect.poll(() => listener.latest("queues")?.queues?.length).toBeGreaterThan(0);
  expect(listener.latest("assignment")?.assignment?.user_id).toBe(user_id);
  await agent.release(assignment_id);
  await listener.saw("assignment_ended", user_id);
  expect(new Set(listener.shown.map((it) => it.name))).toEqual(new Set(["assignment", "queues"]));
  listener.stream.close();
});

test("a list of numbers is taken over as it is, twice as well as once", async () => {
  const token = await bed.token("supervisor", "ts-supervisor-lists");
  const supervisor = new DiallerClient({ baseUrl: bed.gateway, token: () => token });
  const lines = Array.from({ length: 20_000 }, (_, n) => `07700 9${String(n).padStart(5, "0")}`);
  const file = new File(["phone\r\n", lines.join("\r\n"), "\r\nnonsense\r\n"], "tps.csv");
  const first = await supervisor.importPhoneList("ts-list", file, { isComplete: true });
  expect(first).toMatchObject({ lines: 20_001, invalid: 1, invalid_lines: [20_002], removed: 0 });
  expect(first.added).toBeGreaterThan(0);
  const again = await supervisor.importPhoneList("ts-list", file, { isComplete: true });
  expect(again).toMatchObject({ added: 0, removed: 0 });
  // Most of a list is not lost by a wrong file.
  const one = "07700 900001\n";
  await expect(supervisor.importPhoneList("ts-list", one, { isComplete: true })).rejects.toMatchObject({
    reason: "LIST_SHRINKS",
  });
  const meant = { isComplete: true, allowShrink: true };
  const shorter = await supervisor.importPhoneList("ts-list", one, meant);
  expect(shorter.removed).toBe(first.added - 1);
  await expect(supervisor.importPhoneList("ts-list", "", { isComplete: true })).rejects.toMatchObject({
    reason: "LIST_EMPTY",
  });
});

test("a supervisor's topics show the wallboard and the pipeline, and agents may not", async () => {
  const token = await bed.token("supervisor", "ts-supervisor-2");
  const supervisor = new DiallerClient({ baseUrl: bed.gateway, token: () => token });
  const listener = await new Listener(supervisor, { topics: ["wallboard", "pipeline"] }).live();
  await expect.poll(() => listener.latest("wallboard")?.figures?.queues.length).toBeGreaterThan(0);
  await expect.poll(() => listener.latest("history")?.samples.length).toBeGreaterThan(0);
  await expect.poll(() => listener.latest("pipeline")?.health.fresh).toBeTypeOf("boolean");
  listener.stream.close();

  const refused = new Listener(await newAgent(), { topics: ["wallboard"] });
  await expect.poll(() => refused.stream.status).toBe("ended");
  expect(refused.errors.at(-1)).toMatchObject({ status: 403, reason: "TOPIC_NOT_ALLOWED" });
});

test("a stream ends for good when the session does, and says so", async () => {
  const token = await bed.token("agent", "ts-agent-short", -120);
  const agent = new DiallerClient({ baseUrl: bed.gateway, token: () => token });
  const listener = new Listener(agent);
  await expect.poll(() => listener.stream.status).toBe("ended");
  expect(listener.errors.at(-1)).toMatchObject({ status: 401, isSessionOver: true });
});
