"use client";

import { DiallerClient } from "@dialler/client";
import {
  DiallerProvider,
  useAssignment,
  useClaimNext,
  useHeartbeat,
  useLive,
  usePersonContext,
  useRecordOutcome,
} from "@dialler/client/react";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";

// Reads and writes by way of your own server, which adds the token; events straight from the gateway.
const client = new DiallerClient({ baseUrl: "/api/dialler", eventsUrl: "https://dialler.example" });
const cache = new QueryClient();

export function Desk() {
  return (
    <QueryClientProvider client={cache}>
      <DiallerProvider client={client}>
        <Call />
      </DiallerProvider>
    </QueryClientProvider>
  );
}

function Call() {
  const live = useLive();
  const assignment = useAssignment().data ?? null;
  const context = usePersonContext(assignment?.user_id ?? null).data?.context;
  const { lost } = useHeartbeat(assignment?.assignment_id ?? null);
  const claim = useClaimNext();
  const record = useRecordOutcome();
  if (!assignment) return <button onClick={() => claim.mutate({})}>Next</button>;
  const { assignment_id: assignmentId } = assignment;
  return (
    <button onClick={() => record.mutate({ assignmentId, outcome: "no_answer" })}>
      {lost ? "Taken back" : `No answer from ${context?.user?.first_name} (${live.status})`}
    </button>
  );
}
