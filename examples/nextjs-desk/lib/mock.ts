import type {
  Assignment,
  CallbackPage,
  Calls,
  Claimed,
  Context,
  Found,
  Problem,
  Queues,
  Recorded,
  Suppressed,
} from "@dialler/client";

/**
 * Answers like a gateway, from invented data: the desk without a dialler behind it.
 *
 * Every answer has the type of the real one, so that the mock cannot drift from the API.
 */
export async function mockGateway(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  const route = `${request.method} ${pathname.replace(/\/[0-9a-f-]{36}(?=\/)/, "/:id")}`;
  switch (route) {
    case "GET /v1/queues":
      return answer(queues);
    case "POST /v1/assignments":
      return answer({ assignment: hold(), already_held: false, empty: null, rejected_by_live_check: 1 } satisfies Claimed, 201);
    case "GET /v1/assignments/current":
      return held ? answer(held) : problem(404, "NO_LIVE_ASSIGNMENT");
    case "POST /v1/assignments/:id/heartbeat":
      return held ? answer(held) : problem(409, "ASSIGNMENT_NOT_LIVE");
    case "POST /v1/assignments/:id/outcome":
    case "POST /v1/assignments/:id/release":
      held = null;
      return answer({ call_state: { ...callState, state: "waiting" }, conversion: null } satisfies Recorded);
    case "GET /v1/people/4711/context":
      return answer(context, 200, { etag: '"mock-1"', "dialler-stale": "false" });
    case "PUT /v1/agents/me/presence":
      return answer({});
    case "GET /v1/callbacks":
      return answer({ callbacks: [], next_page_token: null } satisfies CallbackPage);
    case "GET /v1/people/4711/calls":
      return answer({ calls: [], next_page_token: null } satisfies Calls);
    case "POST /v1/suppressions":
      return answer({ suppression_id: crypto.randomUUID(), call_state: null } satisfies Suppressed, 201);
    case "POST /v1/people/search":
      return answer({ people: [], is_complete: true } satisfies Found);
    default:
      return problem(404, "NOT_MOCKED");
  }
}

let held: Assignment | null = null;

const callState = {
  user_id: "4711",
  queue: "unsigned_users",
  state: "assigned",
  reason: "NO_SIGNATURE",
  score: 2,
  attempts: 1,
  last_outcome: "no_answer",
  last_contact_at: "2026-03-02T10:15:00.000000Z",
  next_call_at: null,
  assigned_agent_id: "agent-1",
  recent_attempts: [
    {
      agent_id: "agent-2",
      outcome: "no_answer",
      ended_at: "2026-03-02T10:15:00.000000Z",
      notes: "",
      disposition: null,
    },
  ],
  version: "7",
  hold: null,
  open_callback: null,
} satisfies Context["call_state"];

const context: Context = {
  user: {
    user_id: "4711",
    first_name: "Siân",
    last_name: "O'Connor",
    previous_name: null,
    email_address: "sian@example.com",
    phone_number: "+447700900123",
    phone_numbers: ["+447700900123"],
    phone_number_as_written: null,
    is_phone_valid: true,
    date_of_birth: "1984-06-12",
    is_enabled: true,
    status: null,
    has_signature: false,
    has_id_document: true,
    notification_channels: null,
    third_party_claim_partner: null,
    introducer: "mcc",
    solicitor: null,
    credit_response_selection_completed: null,
    last_login: "2026-03-01T19:02:11.000000Z",
    created_at: "2026-02-20T08:00:00.000000Z",
    updated_at: "2026-03-01T19:02:11.000000Z",
    current_address: null,
  },
  claims: [
    {
      claim_id: "9001",
      type: "pcp",
      status: null,
      lender: "Black Horse",
      solicitor: null,
      client_last_updated_at: null,
      created_at: "2026-02-20T08:00:00.000000Z",
      updated_at: null,
      requirements: [
        {
          requirement_id: "c0ffee00-0000-4000-8000-000000000001",
          type: "signature",
          status: "PENDING",
          reason: "base requirement for claim.",
          rejection_reason: null,
          created_at: "2026-02-20T08:00:00.000000Z",
          updated_at: null,
        },
      ],
      vehicle_packages: [],
    },
  ],
  call_state: callState,
};

const queues: Queues = {
  queues: [
    { queue: "unsigned_users", ready: 12, waiting: 30, assigned: 2, oldest_ready_since: null, holds: {}, blocked: {} },
    { queue: "outstanding_requests", ready: 8, waiting: 11, assigned: 1, oldest_ready_since: null, holds: {}, blocked: {} },
    { queue: "callbacks", ready: 0, waiting: 4, assigned: 0, oldest_ready_since: null, holds: {}, blocked: {} },
  ],
  agents_on_assignment: 3,
  calls_today: 41,
  conversions_today: 6,
  wrong_calls_prevented_today: 2,
  outcomes_today: { no_answer: 23, completed_form: 6 },
  dispositions_today: {},
  callbacks_missed: 0,
  unreported_calls_today: 0,
  pauses: [],
};

function hold(): Assignment {
  held ??= {
    assignment_id: crypto.randomUUID(),
    agent_id: "agent-1",
    user_id: "4711",
    queue: "unsigned_users",
    reason: "NO_SIGNATURE",
    score: 2,
    started_at: new Date().toISOString(),
    lease_expires_at: new Date(Date.now() + 120_000).toISOString(),
    fence: "1",
    direction: "outbound",
    contact_block: null,
  };
  return held;
}

function answer(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return Response.json(body, { status, headers });
}

function problem(status: number, reason: string): Response {
  const body: Problem = {
    type: "about:blank",
    title: reason,
    status,
    detail: "from the mock",
    instance: "",
    reason,
    metadata: {},
    trace_id: null,
  };
  return answer(body, status);
}
