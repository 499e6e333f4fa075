import { ConnectionError, retryAfterOf } from "./errors.js";
import { abortReason, sleep, spread } from "./waiting.js";

export type Fetch = (input: Request) => Promise<Response>;

export interface TransportOptions {
  /** Sends one request; `globalThis.fetch` unless given. */
  readonly fetch: Fetch;
  /** A fresh token for each attempt, since the one before may have expired. */
  readonly token: (() => TokenAnswer | Promise<TokenAnswer>) | undefined;
  /** Longest time for one attempt. */
  readonly timeoutMs: number;
  /** Longest time a request may spend waiting to be tried again; 0 for no second attempt. */
  readonly retryBudgetMs: number;
}

/** A bearer token, or nothing to send none. */
export type TokenAnswer = string | null | undefined;

const MOST_ATTEMPTS = 4;
const FIRST_PAUSE_MS = 150;

/** Return a `fetch` that adds the token, limits time, and repeats what may be repeated. */
export function transport(options: TransportOptions): Fetch {
  return async (request) => {
    let left = options.retryBudgetMs;
    for (let attempt = 1; ; attempt += 1) {
      const result = await once(request, options);
      const pause = pauseBefore(attempt + 1, result, request, left);
      if (pause === null || pause >= left || attempt >= MOST_ATTEMPTS) {
        if (result instanceof ConnectionError) throw result;
        return result;
      }
      if (result instanceof Response) await result.body?.cancel();
      left -= pause;
      await sleep(pause, request.signal);
    }
  };
}

async function once(
  request: Request,
  options: TransportOptions,
): Promise<Response | ConnectionError> {
  const token = await options.token?.();
  const limit = AbortSignal.timeout(options.timeoutMs);
  // A copy holds on to the whole body for the next attempt.
  const attempt = new Request(options.retryBudgetMs > 0 ? request.clone() : request, {
    signal: AbortSignal.any([request.signal, limit]),
  });
  if (token) attempt.headers.set("authorization", `Bearer ${token}`);
  try {
    return await options.fetch(attempt);
  } catch (error) {
    if (request.signal.aborted) throw abortReason(request.signal);
    return new ConnectionError(limit.aborted ? "TIMEOUT" : "UNREACHABLE", error);
  }
}

/**
 * Return how long to wait before another attempt, of the `left` milliseconds at most unless more is
 * asked for; null when there must be none.
 */
function pauseBefore(
  attempt: number,
  result: Response | ConnectionError,
  request: Request,
  left: number,
): number | null {
  const backOff = FIRST_PAUSE_MS * 2 ** (attempt - 2) * (0.5 + Math.random());
  if (result instanceof ConnectionError) {
    // What ran out of time once has cost the caller enough.
    return result.reason === "UNREACHABLE" && isRepeatable(request) ? backOff : null;
  }
  // 429 was refused before any work; 503 may come after some.
  if (result.status !== 429 && !(result.status === 503 && isRepeatable(request))) return null;
  const asked = retryAfterOf(result);
  if (asked === null) return backOff;
  // Not spread beyond the budget: what was asked fits, so that there is another attempt.
  return Math.max(asked, Math.min(spread(asked), left - 1), backOff);
}

/** Whether a repeat does no harm: reads, and writes that have a key, set a value or only extend. */
function isRepeatable(request: Request): boolean {
  return (
    ["GET", "HEAD", "PUT"].includes(request.method) ||
    request.headers.has("idempotency-key") ||
    request.url.endsWith("/heartbeat") ||
    request.url.endsWith("/people/search") ||
    request.url.endsWith("/events/tickets")
  );
}
