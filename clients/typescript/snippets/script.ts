import { DiallerClient, ProblemError } from "@dialler/client";

const client = new DiallerClient({
  baseUrl: "http://127.0.0.1:8080",
  token: async () => process.env["DIALLER_TOKEN"],
});

const { assignment, empty } = await client.claimNext({ queues: ["unsigned_users"] });
if (assignment) {
  const { context } = await client.context(assignment.user_id);
  console.log(`Call ${context.user?.first_name}: ${assignment.reason}`);
  try {
    await client.recordOutcome(assignment.assignment_id, { outcome: "no_answer" });
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    console.error(error.reason, error.traceId);
  }
} else {
  console.log(`${empty?.waiting} wait, the next is due ${empty?.next_due_at}`);
}
