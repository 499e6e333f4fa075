import { ConnectionError, DiallerError, problemOf, ProblemError } from "./errors.js";
import type {
  Event as DiallerEvent,
  EventType,
  HeldAssignment,
  LastHour,
  Pipeline,
  QueueSizes,
  Wallboard,
} from "./generated/schema.js";
import { SseParser, type Frame } from "./sse.js";
import type { Fetch } from "./transport.js";
import { sleep, spread } from "./waiting.js";

/** How a stream is doing: `waiting` between attempts, `ended` for good. */
export type StreamStatus = "connecting" | "live" | "waiting" | "ended";

/** Why what is shown must be fetched anew. */
export type SnapshotReason = "opened" | "reset";

/** What a stream can be opened for beside events; each is sent at once, and when it changes. */
export type Topic = "assignment" | "queues" | "wallboard" | "pipeline";

/** What topics show, by name; `history` comes with the topic `wallboard`. */
export interface Shown {
  readonly assignment: HeldAssignment;
  readonly queues: QueueSizes;
  readonly wallboard: Wallboard;
  readonly history: LastHour;
  readonly pipeline: Pipeline;
}

/** One of them: `name` tells which. Each takes the place of the one before. */
export type Showing = {
  [Name in keyof Shown]: { readonly name: Name; readonly shown: Shown[Name] };
}[keyof Shown];

export interface EventStreamOptions {
  /** Figures to follow; which are allowed depends on the caller's role. None unless given. */
  readonly topics?: readonly Topic[];
  /** Called with what the topics show. */
  readonly onShow?: (showing: Showing) => void;
  /** Only events about these people; all the caller may see unless given. */
  readonly userIds?: readonly string[];
  /** Only events of these kinds. */
  readonly types?: readonly EventType[];
  /** Go on after this event, from another stream's `lastEventId`. */
  readonly lastEventId?: string;
  /** Called for each event, in order; one may come twice, with the same `event_id`. */
  readonly onEvent: (event: DiallerEvent) => void;
  /** Events before this may be missing: fetch what is shown. Always called on a first opening. */
  readonly onSnapshot?: (why: SnapshotReason) => void;
  /** The error says why a stream waits or has ended; absent when it was closed. */
  readonly onStatus?: (status: StreamStatus, error?: DiallerError) => void;
  readonly signal?: AbortSignal;
  /** Silence after which the connection counts as dead; default 45 s, three heartbeats. */
  readonly silenceMs?: number;
}

export interface EventStream {
  /** The position to go on from; null before the first. */
  readonly lastEventId: string | null;
  readonly status: StreamStatus;
  close(): void;
}

/** Where a stream comes from. */
export interface EventSourceOfGateway {
  readonly url: string;
  readonly fetch: Fetch;
  readonly ticket: (signal: AbortSignal) => Promise<string>;
}

const LONGEST_PAUSE_MS = 30_000;
const FIRST_PAUSE_MS = 500;
/** A network that comes back does so for every desk of a floor at once. */
const ONLINE_SPREAD_MS = 2_000;

/** Open a stream and keep it open. Ends only when closed, or when the gateway refuses the caller. */
export function openEventStream(
  source: EventSourceOfGateway,
  options: EventStreamOptions,
): EventStream {
  const follower = new Follower(source, options);
  void follower.run();
  return follower;
}

class Follower implements EventStream {
  lastEventId: string | null;
  status: StreamStatus = "connecting";
  readonly #source: EventSourceOfGateway;
  readonly #options: EventStreamOptions;
  readonly #stop = new AbortController();
  readonly #stopped: AbortSignal;
  #failures = 0;
  #pauseMs = FIRST_PAUSE_MS;
  #isFirst = true;

  constructor(source: EventSourceOfGateway, options: EventStreamOptions) {
    this.#source = source;
    this.#options = options;
    this.lastEventId = options.lastEventId ?? null;
    this.#isFirst = this.lastEventId === null;
    const given = options.signal;
    this.#stopped = given ? AbortSignal.any([given, this.#stop.signal]) : this.#stop.signal;
  }

  close(): void {
    this.#stop.abort();
  }

  async run(): Promise<void> {
    while (!this.#stopped.aborted) {
      const error = await this.#follow();
      if (this.#stopped.aborted) break;
      if (error && isFinal(error)) {
        this.#tell("ended", error);
        return;
      }
      this.#tell("waiting", error);
      await this.#pause(error);
    }
    this.#tell("ended");
  }

  /** Read one connection to its end; return why it failed, or undefined for an ordinary end. */
  async #follow(): Promise<DiallerError | undefined> {
    this.#tell("connecting");
    const attempt = new AbortController();
    const silence = new Silence(this.#options.silenceMs ?? 45_000, attempt);
    try {
      const signal = AbortSignal.any([this.#stopped, attempt.signal]);
      const ticket = await this.#source.ticket(signal);
      const response = await this.#source.fetch(this.#request(ticket, signal));
      if (!response.ok || response.body === null) {
        return problemOf(response, await response.json().catch(() => null));
      }
      await this.#read(response.body, silence, [this.#stopped, attempt.signal]);
      attempt.signal.throwIfAborted();
      return undefined;
    } catch (error) {
      if (error instanceof DiallerError) return error;
      return new ConnectionError(attempt.signal.aborted ? "TIMEOUT" : "UNREACHABLE", error);
    } finally {
      silence.end();
    }
  }

  #request(ticket: string, signal: AbortSignal): Request {
    const query = new URLSearchParams({ ticket });
    for (const each of this.#options.userIds ?? []) query.append("user_id", each);
    for (const each of this.#options.types ?? []) query.append("type", each);
    for (const each of this.#options.topics ?? []) query.append("topic", each);
    // In the query, not in a header: a browser need not ask first whether it may send it.
    if (this.lastEventId !== null) query.set("last_event_id", this.lastEventId);
    return new Request(`${this.#source.url}?${query}`, {
      headers: { accept: "text/event-stream" },
      cache: "no-store",
      credentials: "omit",
      signal,
    });
  }

  /** Read until the body ends or one of the signals is given, whether or not fetch minds it. */
  async #read(
    body: ReadableStream<Uint8Array>,
    silence: Silence,
    signals: readonly AbortSignal[],
  ): Promise<void> {
    const parser = new SseParser();
    const decoder = new TextDecoder();
    const reader = body.getReader();
    // Node collects signals that follow others while fetch holds them: an abort may not reach it.
    const cancel = (): void => void reader.cancel().catch(() => undefined);
    for (const signal of signals) signal.addEventListener("abort", cancel);
    try {
      if (signals.some((signal) => signal.aborted)) cancel();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        silence.broken();
        for (const frame of parser.push(decoder.decode(value, { stream: true }))) this.#take(frame);
      }
    } finally {
      for (const signal of signals) signal.removeEventListener("abort", cancel);
    }
  }

  #take(frame: Frame): void {
    if (this.#stopped.aborted) return;
    if (frame.kind === "retry") this.#pauseMs = frame.milliseconds;
    else if (frame.kind === "position") this.#moveTo(frame.id);
    else if (frame.name === "reset") this.#snapshot("reset");
    else if (isShown(frame.name)) this.#show(frame.name, frame.data);
    // A goodbye is no event of the suite's; `retry` has said when to come back.
    else if (frame.name !== "reconnect") this.#dispatch(frame.data);
    // The first thing a gateway sends after the replay is its position.
    if (frame.kind === "position" && this.status !== "live") this.#opened();
  }

  #opened(): void {
    this.#failures = 0;
    if (this.#isFirst) this.#snapshot("opened");
    this.#tell("live");
  }

  #moveTo(id: string): void {
    this.lastEventId = id;
  }

  #snapshot(why: SnapshotReason): void {
    this.#isFirst = false;
    safely(() => this.#options.onSnapshot?.(why));
  }

  #dispatch(data: string): void {
    safely(() => {
      const said: unknown = JSON.parse(data);
      if (isEvent(said)) this.#options.onEvent(said);
    });
  }

  #show(name: keyof Shown, data: string): void {
    safely(() => this.#options.onShow?.({ name, shown: JSON.parse(data) } as Showing));
  }

  async #pause(error: DiallerError | undefined): Promise<void> {
    const asked = error instanceof ProblemError ? (error.retryAfterMs ?? 0) : 0;
    if (error) this.#failures += 1;
    // After an ordinary end the gateway has said when, and has spread its clients itself.
    const backOff = error ? FIRST_PAUSE_MS * 2 ** Math.min(this.#failures, 8) : this.#pauseMs;
    const own = Math.min(backOff, LONGEST_PAUSE_MS) * (error ? 0.5 + Math.random() / 2 : 1);
    // A network that is back says nothing of a gateway that asked for patience.
    if (asked > 0) await this.#wait(Math.max(spread(asked), own));
    else if (await this.#waitOrOnline(own)) await this.#wait(Math.random() * ONLINE_SPREAD_MS);
  }

  async #wait(milliseconds: number): Promise<void> {
    await sleep(milliseconds, this.#stopped).catch(() => undefined);
  }

  /** Wait, at most until the browser is online again; returns whether it was that. */
  async #waitOrOnline(milliseconds: number): Promise<boolean> {
    const online = new AbortController();
    const listener = (): void => online.abort();
    globalThis.addEventListener?.("online", listener);
    const either = AbortSignal.any([this.#stopped, online.signal]);
    await sleep(milliseconds, either).catch(() => undefined);
    globalThis.removeEventListener?.("online", listener);
    return online.signal.aborted;
  }

  #tell(status: StreamStatus, error?: DiallerError): void {
    if (status === this.status && !error) return;
    this.status = status;
    safely(() => this.#options.onStatus?.(status, error));
  }
}

/** Cuts a connection off that has said nothing for too long, not even a heartbeat. */
class Silence {
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #milliseconds: number;
  readonly #attempt: AbortController;

  constructor(milliseconds: number, attempt: AbortController) {
    this.#milliseconds = milliseconds;
    this.#attempt = attempt;
    this.broken();
  }

  broken(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#attempt.abort(), this.#milliseconds);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

const SHOWN: ReadonlySet<string> = new Set<keyof Shown>([
  "assignment",
  "queues",
  "wallboard",
  "history",
  "pipeline",
]);

function isShown(name: string): name is keyof Shown {
  return SHOWN.has(name);
}

/** Whether it is an event about a person; a stream also has others, such as `reconnect`. */
function isEvent(said: unknown): said is DiallerEvent {
  return typeof said === "object" && said !== null && "event_id" in said && "user_id" in said;
}

/** Whether trying again cannot help. A ticket that was refused may have been used by a lost try. */
function isFinal(error: DiallerError): boolean {
  return (
    error instanceof ProblemError &&
    [400, 401, 403, 404, 422].includes(error.status) &&
    error.reason !== "TICKET_INVALID"
  );
}

/** Run a caller's function; what it throws is reported, and does not end the stream. */
function safely(run: () => void): void {
  try {
    run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
