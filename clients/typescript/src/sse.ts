/** One thing a stream of server-sent events says. */
export type Frame =
  | { readonly kind: "event"; readonly name: string; readonly data: string }
  | { readonly kind: "position"; readonly id: string }
  | { readonly kind: "retry"; readonly milliseconds: number };

/**
 * Reads server-sent events from text in pieces of any size.
 *
 * Unlike an `EventSource`, and parsers made after it, it also tells of ids in blocks without data:
 * the gateway's heartbeats carry the position past events the client was not shown.
 */
export class SseParser {
  #rest = "";
  #name = "";
  #data: string[] = [];
  #id: string | null = null;

  /** Return what the next piece of the stream completes. */
  push(piece: string): Frame[] {
    const frames: Frame[] = [];
    // A \r at the very end may be half of \r\n.
    const text = this.#rest + piece;
    const held = text.endsWith("\r") ? 1 : 0;
    const lines = text.slice(0, text.length - held).split(/\r\n|\r|\n/);
    this.#rest = (lines.pop() ?? "") + text.slice(text.length - held);
    for (const line of lines) {
      if (line === "") this.#endBlock(frames);
      else this.#take(line, frames);
    }
    return frames;
  }

  #take(line: string, frames: Frame[]): void {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) {
      frames.push({ kind: "retry", milliseconds: Number(value) });
    }
  }

  #endBlock(frames: Frame[]): void {
    // The event comes first: once it has been handled, the position may move.
    if (this.#data.length > 0) {
      const name = this.#name === "" ? "message" : this.#name;
      frames.push({ kind: "event", name, data: this.#data.join("\n") });
    }
    if (this.#id !== null) frames.push({ kind: "position", id: this.#id });
    this.#name = "";
    this.#data = [];
    this.#id = null;
  }
}
