"use client";

import {
  DiallerClient,
  ProblemError,
  type Assignment,
  type CallbackPage,
  type ContextReading,
  type Queues,
} from "@dialler/client";
import { DiallerProvider } from "@dialler/client/react";
import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { useState } from "react";

import { Workspace } from "./workspace";

/** What the server has fetched for the first picture. */
export interface FirstView {
  readonly queues: Queues;
  readonly assignment: Assignment | null;
  readonly callbacks: CallbackPage;
  readonly reading: ContextReading | null;
}

export interface DeskProperties {
  readonly agentId: string;
  /** The gateway as this browser reaches it; null without one, and nothing is live. */
  readonly eventsUrl: string | null;
  readonly first: FirstView;
}

/** The desk in the browser: one client, one cache, one event stream. */
export function Desk({ agentId, eventsUrl, first }: DeskProperties) {
  const [isSessionOver, setSessionOver] = useState(false);
  const [client] = useState(
    () =>
      new DiallerClient({
        baseUrl: "/api/dialler",
        ...(eventsUrl !== null && { eventsUrl }),
      }),
  );
  const [cache] = useState(() => {
    const onError = (error: unknown): void => {
      if (error instanceof ProblemError && error.isSessionOver) setSessionOver(true);
    };
    return new QueryClient({
      queryCache: new QueryCache({ onError }),
      mutationCache: new MutationCache({ onError }),
      defaultOptions: { queries: { staleTime: 5_000 } },
    });
  });
  return (
    <QueryClientProvider client={cache}>
      <DiallerProvider client={client}>
        <Workspace
          agentId={agentId}
          isLive={eventsUrl !== null}
          first={first}
          isSessionOver={isSessionOver}
        />
      </DiallerProvider>
    </QueryClientProvider>
  );
}
