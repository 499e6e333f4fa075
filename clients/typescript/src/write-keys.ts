import { DiallerError } from "./errors.js";

/** Return a new idempotency key: a random UUID, also where `crypto.randomUUID` is missing. */
export function newWriteKey(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  // A page on plain http has only this; version and variant as RFC 9562 wants them.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
  return [8, 12, 16, 20].reduceRight((text, at) => `${text.slice(0, at)}-${text.slice(at)}`, hex);
}

/**
 * Keeps one key for each logical write until it is known what came of it.
 *
 * When an answer is lost, the agent presses the button again; under the same key the gateway
 * answers what it answered first, so the outcome is recorded once.
 */
export class WriteKeys {
  readonly #open = new Map<string, string>();

  /** Run `write` under the key of this write: a new one, or that of an attempt left in doubt. */
  async under<T>(what: unknown, write: (key: string) => Promise<T>): Promise<T> {
    const name = JSON.stringify(what);
    const key = this.#open.get(name) ?? newWriteKey();
    this.#open.set(name, key);
    try {
      const result = await write(key);
      this.#open.delete(name);
      return result;
    } catch (error) {
      if (error instanceof DiallerError && !error.isAmbiguous) this.#open.delete(name);
      throw error;
    }
  }
}
