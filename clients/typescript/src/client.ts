import createFetchClient, { type Client } from "openapi-fetch";

import { problemOf, ProblemError } from "./errors.js";
import { openEventStream, type EventStream, type EventStreamOptions } from "./events.js";
import type {
  Agent,
  Assignment,
  CallbackState,
  CallbackPage,
  Calls,
  Claimed,
  ClaimRequest,
  Context,
  EntryState,
  Found,
  OutcomeRequest,
  paths,
  PhoneListImport,
  PhoneListOverview,
  Presence,
  QueueEntries,
  QueueName,
  Queues,
  Recorded,
  Reference,
  Released,
  ReleaseRequest,
  SearchRequest,
  Suppressed,
  SuppressionRequest,
  Ticket,
} from "./generated/schema.js";
import { transport, type Fetch, type TokenAnswer } from "./transport.js";
import { newWriteKey } from "./write-keys.js";

export interface DiallerOptions {
  /** The gateway, or a route of your own that passes on to it: `https://…` or `/api/dialler`. */
  readonly baseUrl: string;
  /** Called before each attempt; leave it out where something on the way adds the token. */
  readonly token?: () => TokenAnswer | Promise<TokenAnswer>;
  /** The gateway itself, for the event stream, which proxies tend to hold back; else `baseUrl`. */
  readonly eventsUrl?: string;
  /** Longest time for one attempt; default 10 s, twice the gateway's own limit. */
  readonly timeoutMs?: number;
  /** Longest time spent waiting for another attempt after 429, 503 or no answer; default 4 s. */
  readonly retryBudgetMs?: number;
  /** Instead of `globalThis.fetch`. */
  readonly fetch?: Fetch;
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface PageOptions extends ReadOptions {
  readonly pageSize?: number;
  /** `next_page_token` of the page before. */
  readonly pageToken?: string | undefined;
}

export interface WriteOptions extends ReadOptions {
  /** Made for you unless given; give the same again to repeat a write whose answer was lost. */
  readonly idempotencyKey?: string;
}

export interface ClaimOptions extends WriteOptions {
  /** Answer with the context of the person as well, in one round trip. */
  readonly includeContext?: boolean;
}

export interface ImportOptions extends ReadOptions {
  /** Also take numbers that are missing here off the list. */
  readonly isComplete?: boolean;
  /** Let a complete list take off most of the numbers there are; otherwise 409 `LIST_SHRINKS`. */
  readonly allowShrink?: boolean;
  /** The day that the list is of, such as `2026-10-31`; today by default. */
  readonly datedOn?: string;
  /** Where it comes from, such as a file's name. */
  readonly source?: string;
  /** Only count whom the list would concern. */
  readonly dryRun?: boolean;
  /** Default ten minutes and a little, the gateway's own limit. */
  readonly timeoutMs?: number;
}

const UPLOAD_MS = 610_000;

/** A context, and how far it can be believed. */
export interface ContextReading {
  readonly context: Context;
  /** Names this version; sent back when the context is read again. */
  readonly etag: string;
  /** True while the main app cannot be asked: the last known context. */
  readonly isStale: boolean;
  /** When the main app's part was read. */
  readonly readAt: string | null;
}

interface FetchResult<T> {
  readonly data?: T;
  readonly error?: unknown;
  readonly response: Response;
}

/** The gateway's API. Every method throws `ProblemError`, `ConnectionError` or the abort reason. */
export class DiallerClient {
  /** Every endpoint with its types, for what has no method of its own here; see `unwrap`. */
  readonly api: Client<paths>;
  readonly #options: DiallerOptions;
  readonly #fetch: Fetch;
  readonly #send: (limits: { timeoutMs: number; retryBudgetMs: number }) => Fetch;

  constructor(options: DiallerOptions) {
    this.#options = options;
    this.#fetch = options.fetch ?? ((request) => globalThis.fetch(request));
    this.#send = (limits) => transport({ fetch: this.#fetch, token: options.token, ...limits });
    this.api = createFetchClient<paths>({
      baseUrl: options.baseUrl,
      // Personal data: in no cache of the browser's or of a framework's.
      cache: "no-store",
      fetch: this.#send({
        timeoutMs: options.timeoutMs ?? 10_000,
        retryBudgetMs: options.retryBudgetMs ?? 4_000,
      }),
    });
  }

  /** Return the data of an answer of `api`; throws its problem. */
  async unwrap<T>(answer: Promise<FetchResult<T>>): Promise<T> {
    const { data, error, response } = await answer;
    if (!response.ok) throw problemOf(response, error);
    return data as T;
  }

  /** How many people are where in each queue, and today's figures. */
  async queues(options: ReadOptions = {}): Promise<Queues> {
    return this.unwrap(this.api.GET("/v1/queues", signalOf(options)));
  }

  /** One page of a queue in the order of handing out. */
  async entries(
    queue: QueueName,
    options: PageOptions & { readonly state?: EntryState; readonly reason?: string } = {},
  ): Promise<QueueEntries> {
    const query = {
      ...(options.state !== undefined && { state: options.state }),
      ...(options.reason !== undefined && { reason: options.reason }),
      ...pageOf(options),
    };
    return this.unwrap(
      this.api.GET("/v1/queues/{queue}/entries", {
        params: { path: { queue }, query },
        ...signalOf(options),
      }),
    );
  }

  /**
   * What an agent must know of a person.
   *
   * With the reading before, an unchanged context crosses the network as a few bytes, and the
   * answer holds the very same `context` object.
   */
  async context(
    userId: string,
    options: ReadOptions & { readonly previous?: ContextReading | undefined } = {},
  ): Promise<ContextReading> {
    const { previous } = options;
    const header = previous ? { "If-None-Match": previous.etag } : {};
    const answer = await this.api.GET("/v1/people/{user_id}/context", {
      params: { path: { user_id: userId }, header },
      ...signalOf(options),
    });
    const { response } = answer;
    const about = {
      etag: response.headers.get("etag") ?? "",
      isStale: response.headers.get("dialler-stale") === "true",
      readAt: response.headers.get("dialler-read-at"),
    };
    if (previous && response.status === 304) return { context: previous.context, ...about };
    return { context: await this.unwrap(Promise.resolve(answer)), ...about };
  }

  /**
   * The right next person, checked against the main app within this request, or why there is none.
   *
   * With `includeContext` the answer has the person's context, unless it cannot be read now.
   */
  async claimNext(body: ClaimRequest = {}, options: ClaimOptions = {}): Promise<Claimed> {
    return this.unwrap(
      this.api.POST("/v1/assignments", {
        params: {
          header: keyOf(options),
          query: options.includeContext ? { include: "context" } : {},
        },
        body,
        ...signalOf(options),
      }),
    );
  }

  /** The agent's live assignment; null without one. */
  async currentAssignment(options: ReadOptions = {}): Promise<Assignment | null> {
    try {
      return await this.unwrap(this.api.GET("/v1/assignments/current", signalOf(options)));
    } catch (error) {
      // Another 404 says that the address is wrong, not that the agent is free.
      if (error instanceof ProblemError && error.reason === "NO_LIVE_ASSIGNMENT") return null;
      throw error;
    }
  }

  /** Extend the lease; 409 when the assignment has ended. */
  async heartbeat(assignmentId: string, options: ReadOptions = {}): Promise<Assignment> {
    return this.unwrap(
      this.api.POST("/v1/assignments/{assignment_id}/heartbeat", {
        params: { path: { assignment_id: assignmentId } },
        ...signalOf(options),
      }),
    );
  }

  /** Give the person back without a call. */
  async release(
    assignmentId: string,
    body: ReleaseRequest = {},
    options: WriteOptions = {},
  ): Promise<Released> {
    return this.unwrap(
      this.api.POST("/v1/assignments/{assignment_id}/release", {
        params: { path: { assignment_id: assignmentId }, header: keyOf(options) },
        body,
        ...signalOf(options),
      }),
    );
  }

  /** Record how the call ended and end the assignment, both or neither. */
  async recordOutcome(
    assignmentId: string,
    body: OutcomeRequest,
    options: WriteOptions = {},
  ): Promise<Recorded> {
    return this.unwrap(
      this.api.POST("/v1/assignments/{assignment_id}/outcome", {
        params: { path: { assignment_id: assignmentId }, header: keyOf(options) },
        body,
        ...signalOf(options),
      }),
    );
  }

  /** Callbacks, the earliest first: the agent's own, or those of one person. */
  async callbacks(
    options: PageOptions & { readonly state?: CallbackState; readonly userId?: string } = {},
  ): Promise<CallbackPage> {
    const query = {
      ...(options.state !== undefined && { state: options.state }),
      ...(options.userId !== undefined && { user_id: options.userId }),
      ...pageOf(options),
    };
    return this.unwrap(this.api.GET("/v1/callbacks", { params: { query }, ...signalOf(options) }));
  }

  /** Every call of a person, those without a report included, the latest first. */
  async calls(userId: string, options: PageOptions = {}): Promise<Calls> {
    return this.unwrap(
      this.api.GET("/v1/people/{user_id}/calls", {
        params: { path: { user_id: userId }, query: pageOf(options) },
        ...signalOf(options),
      }),
    );
  }

  /** People by number in any format, e-mail address or name; an agent may read whom it found. */
  async search(body: SearchRequest, options: ReadOptions = {}): Promise<Found> {
    return this.unwrap(this.api.POST("/v1/people/search", { body, ...signalOf(options) }));
  }

  /**
   * Record that a person, or a bare phone number, must not be contacted any more.
   *
   * Agents: of people they may see, and of any number. `body` has `user_id` or `phone`, not both.
   */
  async recordObjection(body: SuppressionRequest, options: WriteOptions = {}): Promise<Suppressed> {
    return this.unwrap(
      this.api.POST("/v1/suppressions", {
        params: { header: keyOf(options) },
        body,
        ...signalOf(options),
      }),
    );
  }

  /** The agent's own presence, assignment and figures of the day. */
  async me(options: ReadOptions = {}): Promise<Agent> {
    return this.unwrap(this.api.GET("/v1/agents/me", signalOf(options)));
  }

  /** What the agent is doing; to be said again within two minutes. Callbacks wait for who is there. */
  async setPresence(presence: Presence, options: ReadOptions = {}): Promise<Agent> {
    return this.unwrap(
      this.api.PUT("/v1/agents/me/presence", { body: { presence }, ...signalOf(options) }),
    );
  }

  /**
   * Take over a list of numbers that must not be called, all of it or nothing; for supervisors.
   *
   * `csv` has one number a line, or a column headed `phone`. A file is streamed, not read into
   * memory, and sent once: after a failure, call again, which does no harm.
   */
  async importPhoneList(
    listName: string,
    csv: Blob | string,
    options: ImportOptions = {},
  ): Promise<PhoneListImport> {
    const { isComplete, allowShrink, datedOn, source, dryRun, timeoutMs = UPLOAD_MS } = options;
    return this.unwrap(
      this.api.PUT("/v1/phone-lists/{list_name}", {
        params: {
          path: { list_name: listName },
          query: {
            ...(isComplete !== undefined && { is_complete: isComplete }),
            ...(allowShrink !== undefined && { allow_shrink: allowShrink }),
            ...(datedOn !== undefined && { dated_on: datedOn }),
            ...(source !== undefined && { source }),
            ...(dryRun !== undefined && { dry_run: dryRun }),
          },
        },
        // A browser goes by the file's ending, and by what the computer takes that for.
        headers: { "content-type": "text/csv" },
        body: csv,
        bodySerializer: () => csv,
        fetch: this.#send({ timeoutMs, retryBudgetMs: 0 }),
        ...signalOf(options),
      }),
    );
  }

  /** Lists of numbers in force, of which day they are, and whether they are old; for supervisors. */
  async phoneLists(options: ReadOptions = {}): Promise<PhoneListOverview> {
    return this.unwrap(this.api.GET("/v1/phone-lists", signalOf(options)));
  }

  /** Queues, outcomes with their rules, reasons and every enumeration; good for an hour. */
  async reference(options: ReadOptions = {}): Promise<Reference> {
    return this.unwrap(this.api.GET("/v1/reference", signalOf(options)));
  }

  /** A ticket that opens one event stream once. */
  async eventTicket(options: ReadOptions = {}): Promise<Ticket> {
    return this.unwrap(this.api.POST("/v1/events/tickets", signalOf(options)));
  }

  /** Follow events until closed; opened anew by itself, each time with a ticket of its own. */
  events(options: EventStreamOptions): EventStream {
    return openEventStream(
      {
        url: `${this.#options.eventsUrl ?? this.#options.baseUrl}/v1/events`,
        fetch: this.#fetch,
        ticket: async (signal) => (await this.eventTicket({ signal })).ticket,
      },
      options,
    );
  }
}

function pageOf(options: PageOptions): { page_size?: number; page_token?: string } {
  return {
    ...(options.pageSize !== undefined && { page_size: options.pageSize }),
    ...(options.pageToken !== undefined && { page_token: options.pageToken }),
  };
}

function keyOf(options: WriteOptions): { "Idempotency-Key": string } {
  return { "Idempotency-Key": options.idempotencyKey ?? newWriteKey() };
}

function signalOf(options: ReadOptions): { signal?: AbortSignal } {
  return options.signal ? { signal: options.signal } : {};
}
