/**
 * Return when to come back after being asked to wait at least so long: up to twice as long.
 * Clients that were refused together were asked the same, and are not to come back together.
 */
export function spread(askedMs: number): number {
  return askedMs * (1 + Math.random());
}

/** Wait; rejects at once with the signal's reason when it aborts. */
export async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) throw abortReason(signal);
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(done, milliseconds);
    function done(): void {
      signal.removeEventListener("abort", stopped);
      resolve();
    }
    function stopped(): void {
      clearTimeout(timer);
      reject(abortReason(signal));
    }
    signal.addEventListener("abort", stopped, { once: true });
  });
}

/** Return why a signal aborted, as something that can be thrown. */
export function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error ? reason : new DOMException("aborted", "AbortError");
}
