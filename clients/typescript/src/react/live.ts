"use client";

import { useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";

import type { DiallerError } from "../errors.js";
import type { StreamStatus } from "../events.js";
import type { Event as DiallerEvent } from "../generated/schema.js";
import { useDialler } from "./provider.js";
import { diallerKeys } from "./reads.js";

export interface Live {
  readonly status: StreamStatus;
  /** Why the stream waits or has ended. */
  readonly error: DiallerError | null;
}

const LISTS_AT_MOST_EVERY_MS = 1_000;

/**
 * Follow events and refresh what they concern: contexts, the agent's assignment, the queues.
 *
 * Use it once, high up: browsers open few connections to one host. After a gap all is read anew.
 */
export function useLive(
  options: { readonly onEvent?: (event: DiallerEvent) => void; readonly enabled?: boolean } = {},
): Live {
  const client = useDialler();
  const cache = useQueryClient();
  const [live, setLive] = useState<Live>({ status: "connecting", error: null });
  const onEvent = useRef(options.onEvent);
  const isEnabled = options.enabled ?? true;
  useEffect(() => {
    onEvent.current = options.onEvent;
  });
  useEffect(() => {
    if (!isEnabled) return;
    const refresher = new Refresher(cache);
    const stream = client.events({
      onEvent: (event) => {
        refresher.refresh(event);
        onEvent.current?.(event);
      },
      onSnapshot: () => void cache.invalidateQueries({ queryKey: diallerKeys.all }),
      onStatus: (status, error) => setLive({ status, error: error ?? null }),
    });
    return () => {
      stream.close();
      refresher.stop();
    };
  }, [cache, client, isEnabled]);
  return live;
}

/** Marks cached answers as outdated. In a burst of events lists are read once a second. */
class Refresher {
  readonly #cache: QueryClient;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(cache: QueryClient) {
    this.#cache = cache;
  }

  refresh(event: DiallerEvent): void {
    void this.#cache.invalidateQueries({ queryKey: diallerKeys.context(event.user_id) });
    if (event.type === "context_changed") return;
    if (event.type === "assignment_started" || event.type === "assignment_ended") {
      void this.#cache.invalidateQueries({ queryKey: diallerKeys.assignment });
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#cache.invalidateQueries({ queryKey: diallerKeys.queues });
      void this.#cache.invalidateQueries({ queryKey: diallerKeys.callbacks });
    }, LISTS_AT_MOST_EVERY_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
