import type { Context, EmptyQueue, QueueStats } from "@dialler/client";
import { expect, test } from "vitest";

import { changesBetween } from "../lib/changes.ts";
import { mockGateway } from "../lib/mock.ts";
import { age, emptySentences, outcomeName, pounds, spokenPhone, when } from "../lib/words.ts";

const NOW = new Date("2026-03-27T22:30:00Z");

test("times are told as people say them, by London's clock", () => {
  expect(when("2026-03-27T23:30:00.000000Z", NOW)).toBe("today at 23:30");
  expect(when("2026-03-28T00:10:00.000000Z", NOW)).toBe("tomorrow at 00:10");
  expect(when("2026-03-26T09:00:00.000000Z", NOW)).toBe("yesterday at 09:00");
  // The clocks go forward on the 29th.
  expect(when("2026-03-29T23:30:00.000000Z", NOW)).toBe("Mon 30 Mar at 00:30");
  expect(when("2025-01-12T17:54:00.000000Z", NOW)).toContain("2025");
});

test("numbers, money and ages", () => {
  expect(spokenPhone("+447700900123")).toBe("07700 900123");
  expect(spokenPhone("+33199001234")).toBe("+33199001234");
  expect(pounds("12345678901234567.5")).toBe("£12,345,678,901,234,567.50");
  expect(age("1984-03-28", NOW)).toBe(41);
  expect(age("1984-03-27", NOW)).toBe(42);
});

test("an empty queue is explained, the most useful first", () => {
  const empty: EmptyQueue = {
    waiting: 14,
    assigned: 1,
    next_due_at: "2099-01-05T09:00:00.000000Z",
    calling_hours_begin_at: "2099-01-05T08:00:00.000000Z",
    pauses: [
      {
        pause_id: "b83bf13c-60f4-4166-ad09-736910c6b1cc",
        queue: null,
        begins_at: "2099-01-01T08:00:00.000000Z",
        ends_at: "2099-01-05T07:00:00.000000Z",
        reason: "Closed.",
        created_by: "supervisor-1",
        created_at: "2098-12-01T08:00:00.000000Z",
        ended_by: null,
      },
    ],
  };
  const stats: QueueStats = {
    queue: "unsigned_users",
    ready: 0,
    waiting: 14,
    assigned: 1,
    oldest_ready_since: null,
    holds: { cooling: 3, next_call: 11 },
    blocked: {},
  };
  const [paused, hours, next, waiting, assigned] = emptySentences(empty, stats);
  expect(paused).toMatch(/^Calls are paused until Mon,? 5 Jan 2099 at 07:00: Closed\.$/);
  expect(hours).toMatch(/^It is outside calling hours, which begin Mon,? 5 Jan 2099 at 08:00\.$/);
  expect(next).toMatch(/^The next person can be called/);
  expect(waiting).toBe(
    "14 people may not be called yet: 11 were called lately, 3 are new and left in peace for two hours.",
  );
  expect(assigned).toBe("1 person is with other agents.");
  const nothing = { waiting: 0, assigned: 0, next_due_at: null, calling_hours_begin_at: null, pauses: [] };
  expect(emptySentences(nothing, undefined)).toEqual(["No person is in this queue."]);
});

test("a call that was not reported is told as such", () => {
  expect(outcomeName(null)).toBe("No report");
  expect(outcomeName("hung_up")).toBe("Hung up");
});

test("what changed during a call is told in words", async () => {
  const answer = await mockGateway(new Request("http://mock.invalid/v1/people/4711/context"));
  const before = (await answer.json()) as Context;
  const after = structuredClone(before);
  expect(changesBetween(before, after)).toEqual([]);
  if (!after.user || !after.claims[0]?.requirements[0]) throw new Error("the mock has no assignment");
  after.user.has_signature = true;
  after.claims[0].requirements[0].status = "COMPLETED";
  expect(changesBetween(before, after).map((each) => each.text)).toEqual([
    "They have just signed",
    "Signature (Black Horse): completed",
  ]);
});
