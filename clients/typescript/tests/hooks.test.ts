import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { expect, test } from "vitest";

import { DiallerClient } from "../src/index.js";
import { DiallerProvider, useClaimNext, useRecordObjection } from "../src/react/index.js";

/** Return what a hook gives a component under this client. */
function used<T>(client: DiallerClient, hook: () => T): T {
  const given: T[] = [];
  const Probe = () => {
    given.push(hook());
    return null;
  };
  const inside = createElement(DiallerProvider, { client }, createElement(Probe));
  renderToString(createElement(QueryClientProvider, { client: new QueryClient() }, inside));
  const [first] = given;
  if (first === undefined) throw new Error("the hook was not called");
  return first;
}

test("a claim whose answer was lost does not bring its person back after their call", async () => {
  const keys: (string | null)[] = [];
  const client = new DiallerClient({
    baseUrl: "http://gateway.test",
    retryBudgetMs: 0,
    fetch: async (request) => {
      keys.push(request.headers.get("idempotency-key"));
      if (keys.length === 1) throw new TypeError("the answer is lost");
      return Response.json({ assignment: null, already_held: false, empty: null });
    },
  });
  const claim = used(client, useClaimNext);
  await expect(claim.mutateAsync({})).rejects.toMatchObject({ reason: "UNREACHABLE" });
  // Events have told of the assignment, and the call is over: the next press is another claim.
  await claim.mutateAsync({});
  expect(new Set(keys).size).toBe(2);
});

test("an objection whose answer was lost is sent again under its key, another under its own", async () => {
  const keys: (string | null)[] = [];
  const client = new DiallerClient({
    baseUrl: "http://gateway.test",
    retryBudgetMs: 0,
    fetch: async (request) => {
      keys.push(request.headers.get("idempotency-key"));
      if (keys.length === 1) throw new TypeError("the answer is lost");
      return Response.json({ suppression_id: "s-1", call_state: null }, { status: 201 });
    },
  });
  const objection = used(client, useRecordObjection);
  const said = { phone: "07700 900123", notes: "asked" };
  await expect(objection.mutateAsync(said)).rejects.toMatchObject({ reason: "UNREACHABLE" });
  await expect(objection.mutateAsync(said)).resolves.toMatchObject({ suppression_id: "s-1" });
  await objection.mutateAsync({ ...said, phone: "07700 900124" });
  expect(keys[1]).toBe(keys[0]);
  expect(keys[2]).not.toBe(keys[0]);
});
