import type { Presence } from "@dialler/client";
import { useDialler } from "@dialler/client/react";
import { useEffect } from "react";

const EVERY_MS = 45_000;

/** Say what the agent is doing, again and again: callbacks wait for agents who are there. */
export function usePresence(presence: Presence, isOn: boolean): void {
  const client = useDialler();
  useEffect(() => {
    if (!isOn) return;
    const stop = new AbortController();
    const say = (): void => {
      // A lost one does no harm: the next follows soon.
      client.setPresence(presence, { signal: stop.signal }).catch(() => undefined);
    };
    say();
    const timer = setInterval(say, EVERY_MS);
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [client, isOn, presence]);
}
