import type { FieldProblem, Problem } from "./generated/schema.js";

/** Everything the client throws, but for a caller's own abort. */
export abstract class DiallerError extends Error {
  /** Stable UPPER_SNAKE code to branch on. */
  abstract readonly reason: string;

  /** Whether the gateway may have done what was asked all the same. */
  abstract readonly isAmbiguous: boolean;
}

/** The gateway's answer was a problem (RFC 9457). */
export class ProblemError extends DiallerError {
  override readonly name = "ProblemError";
  readonly status: number;
  readonly reason: string;
  readonly detail: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** What is wrong with a request, field by field; empty unless the status is 422. */
  readonly fields: readonly FieldProblem[];
  /** Finds the request in the gateway's logs. */
  readonly traceId: string | null;
  /** How long the gateway wants not to be asked again. */
  readonly retryAfterMs: number | null;

  constructor(problem: Problem, retryAfterMs: number | null = null) {
    super(`${problem.status} ${problem.reason}: ${problem.detail}`);
    this.status = problem.status;
    this.reason = problem.reason;
    this.detail = problem.detail;
    this.metadata = problem.metadata;
    this.fields = problem.errors ?? [];
    this.traceId = problem.trace_id;
    this.retryAfterMs = retryAfterMs;
  }

  /** The token is missing, expired or not trusted: sign in again. */
  get isSessionOver(): boolean {
    return this.status === 401;
  }

  get isAmbiguous(): boolean {
    return this.status >= 500;
  }
}

/** No answer came: the gateway is out of reach, or the time ran out. */
export class ConnectionError extends DiallerError {
  override readonly name = "ConnectionError";
  readonly reason: "UNREACHABLE" | "TIMEOUT";

  constructor(reason: "UNREACHABLE" | "TIMEOUT", cause: unknown) {
    super(reason === "TIMEOUT" ? "no answer came in time" : "the gateway cannot be reached", {
      cause,
    });
    this.reason = reason;
  }

  get isAmbiguous(): boolean {
    return true;
  }
}

/** Return the problem of an unsuccessful response, also of one that a proxy wrote. */
export function problemOf(response: Response, body: unknown): ProblemError {
  const retryAfterMs = retryAfterOf(response);
  if (isProblem(body)) return new ProblemError(body, retryAfterMs);
  // A proxy on the way answered, in words of its own.
  const problem: Problem = {
    type: "about:blank",
    title: response.statusText,
    status: response.status,
    detail: "the answer did not come from the gateway",
    instance: "",
    reason: `HTTP_${response.status}`,
    metadata: {},
    trace_id: response.headers.get("trace-id"),
  };
  return new ProblemError(problem, retryAfterMs);
}

/** Return what `Retry-After` asks for, in milliseconds; null when it asks for nothing. */
export function retryAfterOf(response: Response, now: number = Date.now()): number | null {
  const text = response.headers.get("retry-after");
  if (text === null) return null;
  const seconds = Number(text);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.max(0, date - now);
}

function isProblem(body: unknown): body is Problem {
  if (typeof body !== "object" || body === null) return false;
  const { reason, status, detail, metadata } = body as Partial<Record<keyof Problem, unknown>>;
  return (
    typeof reason === "string" &&
    typeof status === "number" &&
    typeof detail === "string" &&
    typeof metadata === "object" &&
    metadata !== null
  );
}
