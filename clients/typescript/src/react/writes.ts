"use client";

import {
  useMutation,
  useQueryClient,
  type QueryClient,
  type UseMutationResult,
} from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { DiallerError, ProblemError } from "../errors.js";
import type {
  Assignment,
  Claimed,
  ClaimRequest,
  OutcomeRequest,
  Recorded,
  Released,
  ReleaseRequest,
  Suppressed,
  SuppressionRequest,
} from "../generated/schema.js";
import { WriteKeys } from "../write-keys.js";
import { useDialler } from "./provider.js";
import { diallerKeys } from "./reads.js";

/**
 * Claim the next person. Pressed again after a lost answer, it returns the person that the first press handed out.
 *
 * Every press has a key of its own: an agent with a live assignment gets it again anyway, while a key
 * kept until the next call would return the person of the previous one.
 */
export function useClaimNext(): UseMutationResult<Claimed, DiallerError, ClaimRequest> {
  const client = useDialler();
  const cache = useQueryClient();
  return useMutation<Claimed, DiallerError, ClaimRequest>({
    mutationFn: (body) => client.claimNext(body),
    onSuccess: (claimed) => setAssignment(cache, claimed.assignment),
  });
}

/** Give the person back without a call. */
export function useRelease(): UseMutationResult<
  Released,
  DiallerError,
  ReleaseRequest & { readonly assignmentId: string }
> {
  const client = useDialler();
  const cache = useQueryClient();
  const keys = useWriteKeys();
  return useMutation({
    mutationFn: (write) => {
      const { assignmentId, ...body } = write;
      return keys.under(write, (idempotencyKey) =>
        client.release(assignmentId, body, { idempotencyKey }),
      );
    },
    onSuccess: () => setAssignment(cache, null),
    onError: (error) => askWhenEnded(cache, error),
  });
}

/** Record how the call ended. A double click, or a click after a lost answer, records it once. */
export function useRecordOutcome(): UseMutationResult<
  Recorded,
  DiallerError,
  OutcomeRequest & { readonly assignmentId: string }
> {
  const client = useDialler();
  const cache = useQueryClient();
  const keys = useWriteKeys();
  return useMutation({
    mutationFn: (write) => {
      const { assignmentId, ...body } = write;
      return keys.under(write, (idempotencyKey) =>
        client.recordOutcome(assignmentId, body, { idempotencyKey }),
      );
    },
    onSuccess: () => setAssignment(cache, null),
    onError: (error) => askWhenEnded(cache, error),
  });
}

/** Record an objection of a person or of a bare number; a press after a lost answer is the same. */
export function useRecordObjection(): UseMutationResult<
  Suppressed,
  DiallerError,
  SuppressionRequest
> {
  const client = useDialler();
  const keys = useWriteKeys();
  return useMutation({
    mutationFn: (body) =>
      keys.under(body, (idempotencyKey) => client.recordObjection(body, { idempotencyKey })),
  });
}

export interface Heartbeat {
  /** Why the assignment is no longer the agent's; null while it is. */
  readonly lost: ProblemError | null;
  /** Whether the latest heartbeat got no answer: the lease runs down. */
  readonly isLate: boolean;
}

/** Keep the lease alive while the person is on the screen. */
export function useHeartbeat(assignmentId: string | null, everyMs = 20_000): Heartbeat {
  const client = useDialler();
  const cache = useQueryClient();
  const [beat, setBeat] = useState<{ id: string | null } & Heartbeat>(NO_BEAT);
  useEffect(() => {
    if (assignmentId === null) return;
    const stop = new AbortController();
    const send = async (): Promise<void> => {
      try {
        const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(everyMs)]);
        await client.heartbeat(assignmentId, { signal });
        setBeat({ id: assignmentId, lost: null, isLate: false });
      } catch (error) {
        if (stop.signal.aborted) return;
        const lost = error instanceof ProblemError && hasEnded(error) ? error : null;
        setBeat({ id: assignmentId, lost, isLate: lost === null });
        // The screen stays: what the agent has typed is not thrown away.
        if (lost) void cache.invalidateQueries({ queryKey: diallerKeys.assignment });
      }
    };
    const seen = (): void => {
      if (document.visibilityState === "visible") void send();
    };
    // Timers of a page out of sight run late; on return the lease is extended at once.
    document.addEventListener("visibilitychange", seen);
    const timer = setInterval(() => void send(), everyMs);
    void send();
    return () => {
      stop.abort();
      clearInterval(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [assignmentId, cache, client, everyMs]);
  return assignmentId !== null && beat.id !== assignmentId ? NO_BEAT : beat;
}

const NO_BEAT = { id: null, lost: null, isLate: false } as const;

function useWriteKeys(): WriteKeys {
  const [keys] = useState(() => new WriteKeys());
  return keys;
}

function setAssignment(cache: QueryClient, assignment: Assignment | null): void {
  cache.setQueryData<Assignment | null>(diallerKeys.assignment, assignment);
  void cache.invalidateQueries({ queryKey: diallerKeys.queues });
  void cache.invalidateQueries({ queryKey: diallerKeys.callbacks });
}

/** The assignment ended meanwhile: what is shown is asked for anew. */
function askWhenEnded(cache: QueryClient, error: DiallerError): void {
  if (error instanceof ProblemError && hasEnded(error)) {
    void cache.invalidateQueries({ queryKey: diallerKeys.assignment });
  }
}

function hasEnded(error: ProblemError): boolean {
  return error.status === 409 || error.status === 404;
}
