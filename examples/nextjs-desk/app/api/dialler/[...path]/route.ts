import { forward } from "@/lib/dialler";
import { currentSession } from "@/lib/session";

/**
 * The browser's way to the gateway: adds the token that the browser never sees.
 *
 * Not for the event stream, which the browser opens at the gateway itself with a ticket.
 */
async function handle(request: Request): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  const path = pathname.slice("/api/dialler".length);
  if (!path.startsWith("/v1/") || path === "/v1/events") return refusal(404, "NOT_FOUND");
  // Browsers say where a request comes from; another site's page has no business here.
  const site = request.headers.get("sec-fetch-site");
  if (site !== null && site !== "same-origin") return refusal(403, "CROSS_SITE");
  const session = await currentSession();
  if (session === null) return refusal(401, "NO_SESSION");
  try {
    return await forward(path + search, request, session);
  } catch {
    return refusal(503, "GATEWAY_UNREACHABLE", { "retry-after": "1" });
  }
}

function refusal(status: number, reason: string, headers: HeadersInit = {}): Response {
  const problem = {
    type: "about:blank",
    title: reason,
    status,
    detail: "answered by the desk itself",
    instance: "",
    reason,
    metadata: {},
    trace_id: null,
  };
  return Response.json(problem, {
    status,
    headers: { "content-type": "application/problem+json", ...headers },
  });
}

export { handle as GET, handle as POST, handle as PUT };
