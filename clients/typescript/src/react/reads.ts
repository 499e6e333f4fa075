"use client";

import { useQuery, useQueryClient, type UseQueryResult } from "@tanstack/react-query";

import type { ContextReading } from "../client.js";
import type { DiallerError } from "../errors.js";
import type { Assignment, CallbackPage, Queues } from "../generated/schema.js";
import { useDialler } from "./provider.js";

/** Where each answer lies in the query cache. */
export const diallerKeys = {
  all: ["dialler"] as const,
  queues: ["dialler", "queues"] as const,
  assignment: ["dialler", "assignment"] as const,
  callbacks: ["dialler", "callbacks"] as const,
  context: (userId: string) => ["dialler", "context", userId] as const,
};

/** The client has tried again already; the agent should hear of it now. */
const READ = { retry: false } as const;

/** The queues' figures; `useLive` keeps them current, and a slow poll in case it cannot. */
export function useQueues(
  options: { readonly initialData?: Queues; readonly pollMs?: number } = {},
): UseQueryResult<Queues, DiallerError> {
  const client = useDialler();
  return useQuery<Queues, DiallerError>({
    ...READ,
    queryKey: diallerKeys.queues,
    queryFn: ({ signal }) => client.queues({ signal }),
    refetchInterval: options.pollMs ?? 30_000,
    ...(options.initialData !== undefined && { initialData: options.initialData }),
  });
}

/** The agent's live assignment; null without one. Claims, releases and outcomes set it at once. */
export function useAssignment(
  options: { readonly initialData?: Assignment | null } = {},
): UseQueryResult<Assignment | null, DiallerError> {
  const client = useDialler();
  return useQuery<Assignment | null, DiallerError>({
    ...READ,
    queryKey: diallerKeys.assignment,
    queryFn: ({ signal }) => client.currentAssignment({ signal }),
    ...(options.initialData !== undefined && { initialData: options.initialData }),
  });
}

/** A person's context; read again under its ETag whenever `useLive` hears of a change. */
export function usePersonContext(
  userId: string | null,
  options: { readonly initialData?: ContextReading | undefined } = {},
): UseQueryResult<ContextReading, DiallerError> {
  const client = useDialler();
  const cache = useQueryClient();
  const queryKey = diallerKeys.context(userId ?? "");
  return useQuery<ContextReading, DiallerError>({
    ...READ,
    queryKey,
    enabled: userId !== null,
    queryFn: ({ signal }) => {
      const previous = cache.getQueryData<ContextReading>(queryKey);
      return client.context(userId ?? "", { signal, previous });
    },
    refetchInterval: 60_000,
    // Not kept once no component shows it: personal data.
    gcTime: 0,
    ...(options.initialData !== undefined && { initialData: options.initialData }),
  });
}

/** The agent's own open callbacks, the earliest first. */
export function useCallbacks(
  options: { readonly initialData?: CallbackPage } = {},
): UseQueryResult<CallbackPage, DiallerError> {
  const client = useDialler();
  return useQuery<CallbackPage, DiallerError>({
    ...READ,
    queryKey: diallerKeys.callbacks,
    queryFn: ({ signal }) => client.callbacks({ state: "open", signal }),
    refetchInterval: 60_000,
    ...(options.initialData !== undefined && { initialData: options.initialData }),
  });
}
