import "server-only";

import { DiallerClient, type Fetch } from "@dialler/client";

import { mockGateway } from "@/lib/mock";
import type { Session } from "@/lib/session";

/** The gateway as this server reaches it; without one the desk shows invented people. */
const GATEWAY = process.env["DIALLER_URL"];

/** The gateway as browsers reach it, for live events. */
export const EVENTS_URL = process.env["DIALLER_PUBLIC_URL"] ?? GATEWAY ?? null;

const send: Fetch = GATEWAY === undefined ? mockGateway : (request) => fetch(request);
const baseUrl = GATEWAY ?? "http://mock.invalid";

/** Return the client of one signed-in agent: for server components, route handlers, tRPC. */
export function dialler(session: Pick<Session, "token">): DiallerClient {
  return new DiallerClient({ baseUrl, token: () => session.token, fetch: send });
}

/** Pass a browser's request on to the gateway with the session's token. */
export async function forward(path: string, request: Request, session: Session): Promise<Response> {
  const headers = new Headers({ authorization: `Bearer ${session.token}` });
  for (const name of PASSED_ON) {
    const value = request.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  const hasBody = request.method !== "GET" && request.method !== "HEAD";
  const answer = await send(
    new Request(`${baseUrl}${path}`, {
      method: request.method,
      headers,
      body: hasBody ? await request.arrayBuffer() : null,
      cache: "no-store",
      redirect: "manual",
      signal: request.signal,
    }),
  );
  const passedBack = new Headers();
  for (const name of PASSED_BACK) {
    const value = answer.headers.get(name);
    if (value !== null) passedBack.set(name, value);
  }
  return new Response(answer.body, { status: answer.status, headers: passedBack });
}

const PASSED_ON = ["content-type", "idempotency-key", "if-none-match", "traceparent"];
const PASSED_BACK = [
  "cache-control",
  "content-type",
  "dialler-read-at",
  "dialler-stale",
  "etag",
  "retry-after",
  "trace-id",
];
