import { ConnectionError, ProblemError } from "@dialler/client";
import type { NextRequest } from "next/server";
import { z } from "zod";

import { dialler } from "@/lib/dialler";
import { beginSession, currentSession, endSession, sessionOf } from "@/lib/session";

const SignIn = z.object({ token: z.string().trim().min(1).max(8192) });

/** Sign in: the gateway is asked whether it takes the token. */
export async function POST(request: NextRequest): Promise<Response> {
  const asked = SignIn.safeParse(await request.json().catch(() => null));
  const session = asked.success ? sessionOf(asked.data.token) : null;
  if (session === null) return no(400, "That is not a token. Paste the whole of it.");
  if (session.role !== "agent") {
    return no(403, `This desk is for agents; that token is for the role “${session.role}”.`);
  }
  try {
    await dialler(session).currentAssignment();
  } catch (error) {
    if (error instanceof ProblemError && error.isSessionOver) {
      return no(401, "The token has expired, or this gateway does not trust it.");
    }
    if (error instanceof ConnectionError || error instanceof ProblemError) {
      return no(503, "The dialler does not answer at the moment. Try again shortly.");
    }
    throw error;
  }
  await beginSession(session, request.nextUrl.protocol === "https:");
  return Response.json({ agentId: session.agentId });
}

/** Sign out; the assigned person returns to the queue at once. */
export async function DELETE(): Promise<Response> {
  const session = await currentSession();
  await endSession();
  if (session !== null) await giveBack(session.token);
  return new Response(null, { status: 204 });
}

async function giveBack(token: string): Promise<void> {
  const client = dialler({ token });
  try {
    const held = await client.currentAssignment();
    if (held) await client.release(held.assignment_id, { reason: "agent_leaving" });
    await client.setPresence("offline");
  } catch {
    // The lease runs out by itself.
  }
}

function no(status: number, message: string): Response {
  return Response.json({ message }, { status });
}
