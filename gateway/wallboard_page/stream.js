// The live stream: a ticket, an EventSource, and coming back when it ends.

// The last hour gets a point every 15 seconds, so that silence for longer means a dead connection.
const SILENCE_MS = 45_000;
const LONGEST_PAUSE_MS = 30_000;
const NAMES = ["wallboard", "pipeline", "history"];

export class SignedOut extends Error {}

class TicketRefused extends Error {
  constructor(answer) {
    super(`ticket refused: ${answer.status}`);
    // Screens that are refused together are not to come back together.
    this.askedMs = Number(answer.headers.get("retry-after")) * 1000 * (1 + Math.random()) || 0;
  }
}

export class Stream {
  #token;
  #on;
  #source = null;
  #timer = 0;
  #silence = 0;
  #failures = 0;
  #stopped = false;

  // `on` has: figures(name, data), live(), lost(), refused(reason)
  constructor(token, on) {
    this.#token = token;
    this.#on = on;
  }

  async open() {
    try {
      const ticket = await this.#ticket();
      if (!this.#stopped) this.#listen(ticket);
    } catch (error) {
      if (error instanceof SignedOut) this.#refuse(error.message);
      else this.#comeBack(error.askedMs);
    }
  }

  close() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#drop();
  }

  async #ticket() {
    const answer = await fetch("v1/events/tickets", {
      method: "POST",
      headers: { authorization: `Bearer ${this.#token}` },
      signal: AbortSignal.timeout(10_000),
    });
    if (answer.status === 401) {
      throw new SignedOut("The token is not valid, or it has expired.");
    }
    if (answer.status === 403) throw new SignedOut("This token does not open the wallboard.");
    if (!answer.ok) throw new TicketRefused(answer);
    return (await answer.json()).ticket;
  }

  #listen(ticket) {
    const query = new URLSearchParams({ ticket });
    for (const topic of ["wallboard", "pipeline"]) query.append("topic", topic);
    const source = new EventSource(`v1/events?${query}`);
    this.#source = source;
    this.#watch();
    for (const name of NAMES) {
      source.addEventListener(name, (event) => {
        this.#failures = 0;
        this.#watch();
        this.#on.live();
        this.#on.figures(name, JSON.parse(event.data));
      });
    }
    source.addEventListener("reconnect", (event) => {
      this.#comeBack(JSON.parse(event.data).retry_after_ms);
    });
    // A ticket opens one stream: the browser's own attempt to come back would be refused.
    source.onerror = () => this.#comeBack();
  }

  #watch() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#comeBack(), SILENCE_MS);
  }

  #drop() {
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#source = null;
  }

  #comeBack(askedMs = 0) {
    this.#drop();
    if (this.#stopped) return;
    this.#on.lost();
    const growing = Math.min(LONGEST_PAUSE_MS, 500 * 2 ** Math.min(this.#failures++, 6));
    const pause = askedMs || growing * (0.5 + Math.random());
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open(), pause);
  }

  #refuse(reason) {
    this.close();
    this.#on.refused(reason);
  }
}
