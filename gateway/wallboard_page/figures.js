// Everything on the board but the charts. Text only ever becomes text: textContent, never HTML.

const number = new Intl.NumberFormat(undefined);
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const at = (id) => document.getElementById(id);

const QUEUES = [
  ["callbacks", "Callbacks"],
  ["unsigned_users", "Unsigned"],
  ["outstanding_requests", "Outstanding requests"],
];
const PRESENCE = {
  on_call: "On a call", wrap_up: "Wrapping up", available: "Available", break: "On a break",
};
const MOST_SHOWN = 10;
const MOST_OUTCOMES = 5;
// The suite's own aims: a change seen within 3 seconds, four reads of five from the cache.
const SLOW_SECONDS = 3;
const FEW_HITS = 0.8;
const ENOUGH_READS = 100;

const DASH = "–";

function made(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function count(value) {
  return value === null || value === undefined ? DASH : number.format(value);
}

export function seconds(value) {
  if (value === null || value === undefined) return DASH;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 100 ? `${value.toFixed(1)} s` : lasting(value);
}

function lasting(value) {
  if (value < 60) return `${Math.max(0, Math.floor(value))} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}

function sinceThen(moment) {
  return moment ? lasting((Date.now() - Date.parse(moment)) / 1000) : null;
}

// One labelled figure of a <dl>, made once and then only changed.
class Figure {
  #root = made("div", "figure");
  #value = made("dd");
  #note = made("dd", "note");

  constructor(list, label, size = "") {
    if (size) this.#root.classList.add(size);
    this.#root.append(made("dt", "", label), this.#value, this.#note);
    list.append(this.#root);
  }

  show(value, { note = "", state = "" } = {}) {
    put(this.#value, value);
    put(this.#note, note);
    this.#root.classList.toggle("unknown", value === DASH);
    if (this.#root.dataset.state !== state) this.#root.dataset.state = state;
  }
}

class QueueCard {
  #root = made("article", "card");
  #ready = made("p", "ready", DASH);
  #trend = made("p", "trend");
  #figures;
  #oldest = null;

  constructor(list, name, label) {
    this.#root.dataset.queue = name;
    const heading = made("h3", "", label);
    const caption = made("p", "caption", "ready to call");
    const rest = made("dl", "row");
    this.#root.append(heading, this.#ready, caption, this.#trend, rest);
    this.#figures = {
      waiting: new Figure(rest, "Waiting"),
      assigned: new Figure(rest, "With agents"),
      oldest: new Figure(rest, "Longest ready"),
    };
    list.append(this.#root);
  }

  show(queue, isKnown) {
    put(this.#ready, queue ? count(queue.ready) : isKnown ? "0" : DASH);
    this.#root.classList.toggle("unknown", !queue && !isKnown);
    this.#root.classList.toggle("empty", Boolean(queue) && queue.ready === 0);
    this.#figures.waiting.show(count(queue?.waiting));
    this.#figures.assigned.show(count(queue?.assigned));
    this.#oldest = queue?.oldest_ready_since ?? null;
    this.tick();
  }

  hour(before, now) {
    if (before === undefined || now === undefined) return;
    const change = now - before;
    const sign = change > 0 ? "▲" : change < 0 ? "▼" : "■";
    put(this.#trend, `${sign} ${count(Math.abs(change))} over the last hour`);
  }

  tick() {
    this.#figures.oldest.show(sinceThen(this.#oldest) ?? DASH);
  }
}

export class Figures {
  #say;
  #cards = new Map();
  #today;
  #agents;
  #pipeline;
  #banners = new Map();
  #lists = { agents: null };
  #mode = undefined;

  constructor(say) {
    this.#say = say;
    for (const [name, label] of QUEUES) {
      this.#cards.set(name, new QueueCard(at("queues"), name, label));
    }
    const today = at("today");
    this.#today = {
      calls: new Figure(today, "Calls", "large"),
      conversions: new Figure(today, "Conversions", "large"),
      prevented: new Figure(today, "Wrong calls prevented"),
      missed: new Figure(today, "Callbacks missed"),
      unreported: new Figure(today, "Calls without a report"),
    };
    const agents = at("agents");
    this.#agents = {
      present: new Figure(agents, "Present", "large"),
      on_call: new Figure(agents, "On a call", "large"),
      available: new Figure(agents, "Available"),
      on_break: new Figure(agents, "On a break"),
    };
    const pipeline = at("pipeline");
    this.#pipeline = {
      latency: new Figure(pipeline, "Change latency", "large"),
      backlog: new Figure(pipeline, "Backlog", "large"),
      dead: new Figure(pipeline, "Dead letters"),
      hits: new Figure(pipeline, "Cache hits"),
      drift: new Figure(pipeline, "Drift"),
    };
    this.#showWallboard({ figures: null, agents: null, unavailable: {} });
    this.#showPipeline({ unavailable: {} });
  }

  show(name, data) {
    at("figures").setAttribute("aria-busy", "false");
    if (name === "wallboard") this.#showWallboard(data);
    else if (name === "pipeline") this.#showPipeline(data);
  }

  hour(samples) {
    const [first, last] = [samples[0], samples.at(-1)];
    if (!first || last.at - first.at < 60) return;
    for (const [name, card] of this.#cards) card.hour(first.ready[name], last.ready[name]);
  }

  tick() {
    for (const card of this.#cards.values()) card.tick();
    this.#lists.agents?.forEach(([element, since]) => put(element, sinceThen(since) ?? ""));
  }

  #showWallboard({ figures, agents, outcomes_today: outcomes, callbacks_missed, unavailable }) {
    for (const [name, card] of this.#cards) {
      card.show(figures?.queues.find((each) => each.queue === name), figures !== null);
    }
    this.#showToday(figures, callbacks_missed);
    this.#showOutcomes(outcomes ?? {});
    for (const name of ["present", "on_call", "available", "on_break"]) {
      this.#agents[name].show(count(agents?.[name]));
    }
    const wrapping = agents?.wrap_up ? `${count(agents.wrap_up)} wrapping up` : "";
    this.#agents.on_call.show(count(agents?.on_call), { note: wrapping });
    this.#listAgents(agents);
    put(at("unreported"), unreportedWords(agents?.unreported ?? []));
    this.#away("queues", "Queues and today's figures", unavailable.queues);
    this.#away("agents", "Agents", unavailable.agents);
  }

  #showToday(figures, missed) {
    const { calls_today: calls, conversions_today: conversions } = figures ?? {};
    this.#today.calls.show(count(calls), { note: calls === 0 ? "none yet" : "" });
    this.#today.conversions.show(count(conversions));
    this.#today.prevented.show(count(figures?.wrong_calls_prevented_today));
    this.#today.missed.show(count(missed), warning(missed > 0, "for a supervisor"));
    const unreported = figures?.unreported_calls_today;
    this.#today.unreported.show(count(unreported), warning(unreported > 0, "not in Calls"));
  }

  #showOutcomes(outcomes) {
    const ordered = Object.entries(outcomes).sort(([, one], [, other]) => other - one);
    const most = ordered[0]?.[1] ?? 1;
    const items = ordered.slice(0, MOST_OUTCOMES).map(([name, calls]) => {
      const item = made("li");
      const bar = made("span", "bar");
      bar.style.inlineSize = `${(calls / most) * 100}%`;
      const track = made("span", "track");
      track.append(bar);
      item.append(made("span", "name", name.replaceAll("_", " ")), track, made("span", "", count(calls)));
      return item;
    });
    at("outcomes").replaceChildren(...items);
  }

  #listAgents(agents) {
    const shown = longestFirst(agents?.listed ?? []).slice(0, MOST_SHOWN);
    this.#lists.agents = [];
    const items = shown.map((each) => {
      const item = made("li");
      item.dataset.presence = each.presence;
      const since = made("span", "since", sinceThen(each.since) ?? "");
      if (each.since) this.#lists.agents.push([since, each.since]);
      item.append(
        made("span", "who", each.agent_id),
        made("span", "doing", PRESENCE[each.presence] ?? each.presence),
        since,
      );
      return item;
    });
    if (agents && agents.present === 0) items.push(made("li", "note", "No agent is present"));
    const more = (agents?.present ?? 0) - shown.length;
    if (more > 0) items.push(made("li", "note", `and ${count(more)} more`));
    at("agent-list").replaceChildren(...items);
  }

  #showPipeline({ ingest, cache, reconciliation, freshness, unavailable }) {
    const latency = ingest?.change_latency;
    const has = latency && latency.count > 0;
    const slow = has && latency.p99_seconds > SLOW_SECONDS;
    const tail = has ? `${seconds(latency.p99_seconds)} for the slowest 1 %` : "";
    this.#pipeline.latency.show(
      has ? seconds(latency.p50_seconds) : DASH,
      { note: ingest && !has ? "no changes yet" : tail, state: slow ? "warn" : "" },
    );
    const paused = ingest?.paused ? "paused" : ingest?.downstream_away ? "held up" : "";
    this.#pipeline.backlog.show(count(ingest?.backlog_messages), warning(paused, paused));
    const dead = ingest?.dead_letter_messages;
    this.#pipeline.dead.show(
      count(dead), warning(dead > 0, ingest?.dead_letter_alarm ? "alarm" : "to look at"),
    );
    this.#showHits(cache);
    this.#showDrift(reconciliation);
    this.#showFreshness(freshness, unavailable.freshness);
    for (const [part, label] of [
      ["ingest", "Change latency, backlog and dead letters"],
      ["cache", "Cache hits"],
      ["reconciliation", "Drift"],
    ]) this.#away(part, label, unavailable[part]);
    this.#banner("alarm", ingest?.dead_letter_alarm
      ? "Too many dead letters: changes are not being received until a supervisor resumes them."
      : "");
  }

  #showHits(cache) {
    const reads = cache ? cache.hits + cache.misses : 0;
    const share = reads > 0 ? cache.hits / reads : null;
    const few = share !== null && reads >= ENOUGH_READS && share < FEW_HITS;
    this.#pipeline.hits.show(
      share === null ? DASH : `${Math.floor(share * 100)} %`,
      { note: cache && reads === 0 ? "no reads yet" : "", state: few ? "warn" : "" },
    );
  }

  #showDrift(run) {
    const drifted = run?.users_drifted;
    this.#pipeline.drift.show(count(drifted), warning(drifted > 0, "people"));
    const when = run?.ended_at ?? run?.started_at;
    put(at("reconciliation"), run
      ? `Last reconciliation: ${run.kind ?? "unknown"}, ${run.state ?? "unknown"}` +
        (when ? `, ${clock.format(new Date(when))}` : "") +
        `, ${count(run.users_checked)} checked`
      : "No reconciliation yet");
  }

  #showFreshness(freshness, reason) {
    const mode = freshness?.mode ?? null;
    const texts = { change_capture: "Fresh: change capture", batch: "Batch freshness" };
    const pill = at("freshness");
    const state = mode ?? "unknown";
    if (pill.dataset.state !== state) pill.dataset.state = state;
    put(at("freshness-text"), texts[mode] ?? "Freshness unknown");
    const why = freshness?.reason ? ` (${freshness.reason})` : "";
    const since = freshness?.since ? ` since ${clock.format(new Date(freshness.since))}` : "";
    this.#banner("batch", mode === "batch"
      ? `Change capture is not delivering${since}${why}: reconciliations stand in, figures are ` +
        "up to some minutes old. Calls stay right: each is checked before it is handed out."
      : "");
    this.#away("freshness", "Freshness", reason);
    if (this.#mode !== undefined && mode !== this.#mode) {
      this.#say(texts[mode] ?? "Freshness is unknown.");
    }
    if (freshness !== undefined) this.#mode = mode;
  }

  #away(part, label, reason) {
    this.#banner(`away-${part}`, reason ? `${label} cannot be asked: ${reason}` : "");
  }

  #banner(name, text) {
    const known = this.#banners.get(name);
    if (!text) {
      known?.remove();
      this.#banners.delete(name);
      return;
    }
    if (known) {
      put(known, text);
      return;
    }
    const banner = made("p", "banner", text);
    this.#banners.set(name, banner);
    at("banners").append(banner);
    this.#say(text);
  }
}

// Of those doing the same, who has done so longest is whom a supervisor may want to ask.
function longestFirst(agents) {
  const order = Object.keys(PRESENCE);
  return agents.toSorted((one, other) =>
    order.indexOf(one.presence) - order.indexOf(other.presence) ||
    (one.since ?? "~").localeCompare(other.since ?? "~"));
}

function unreportedWords(agents) {
  const shown = agents.slice(0, MOST_SHOWN).map((each) => `${each.agent_id} ${count(each.calls)}`);
  const more = agents.length - shown.length;
  if (more > 0) shown.push(`and ${count(more)} more agents`);
  return shown.length > 0 ? `Calls without a report: ${shown.join(", ")}` : "";
}

function warning(isOn, note) {
  return isOn ? { note, state: "warn" } : {};
}
