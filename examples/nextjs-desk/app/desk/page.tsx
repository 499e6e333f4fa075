import { ConnectionError, ProblemError } from "@dialler/client";
import type { Metadata } from "next";
import { redirect } from "next/navigation";

import { Desk, type FirstView } from "@/components/desk";
import { Trouble } from "@/components/trouble";
import { dialler, EVENTS_URL } from "@/lib/dialler";
import { requireSession, type Session } from "@/lib/session";

export const metadata: Metadata = { title: "Calls" };

/** The desk as it stands, fetched on the server: the agent sees people, not placeholders. */
export default async function DeskPage() {
  const session = await requireSession();
  const first = await firstView(session);
  if (typeof first === "string") return <Trouble reason={first} />;
  return <Desk agentId={session.agentId} eventsUrl={EVENTS_URL} first={first} />;
}

async function firstView(session: Session): Promise<FirstView | string> {
  const client = dialler(session);
  try {
    const [queues, assignment, callbacks] = await Promise.all([
      client.queues(),
      client.currentAssignment(),
      client.callbacks({ state: "open" }),
    ]);
    const reading = assignment ? await client.context(assignment.user_id) : null;
    return { queues, assignment, callbacks, reading };
  } catch (error) {
    if (error instanceof ProblemError && error.isSessionOver) redirect("/login?ended=1");
    if (error instanceof ProblemError || error instanceof ConnectionError) return error.reason;
    throw error;
  }
}
