import type { Conversion, EmptyQueue, Hold, Outcome, QueueName, QueueStats } from "@dialler/client";

export const QUEUES: Readonly<Record<QueueName, { name: string; about: string }>> = {
  unsigned_users: { name: "Unsigned", about: "Nothing can begin before they sign" },
  outstanding_requests: { name: "Outstanding", about: "Signed, and something is still missing" },
  callbacks: { name: "Callbacks", about: "They asked to be called at this time" },
};

export const OUTCOMES: readonly {
  readonly heading: string;
  readonly outcomes: readonly { readonly value: Outcome; readonly name: string; readonly hint: string }[];
}[] = [
  {
    heading: "We spoke",
    outcomes: [
      { value: "completed_form", name: "Completed the form", hint: "checked at once" },
      { value: "going_to_complete", name: "Going to complete", hint: "again in 3 days" },
      { value: "might_complete", name: "Might complete", hint: "again tomorrow" },
      { value: "call_back", name: "Call back", hint: "at a time they choose" },
      { value: "not_interested", name: "Not interested", hint: "again in 28 days" },
      { value: "no_claim", name: "Has no claim", hint: "a supervisor looks" },
      { value: "do_not_contact", name: "Do not contact", hint: "never again; say why" },
      { value: "deceased", name: "Has died", hint: "never again; say who told you" },
    ],
  },
  {
    heading: "No conversation",
    outcomes: [
      { value: "no_answer", name: "No answer", hint: "again in 4 hours" },
      { value: "hung_up", name: "Hung up", hint: "again in 4 hours" },
      { value: "voicemail_left", name: "Voicemail, message left", hint: "again tomorrow" },
      { value: "voicemail_not_left", name: "Voicemail, no message", hint: "again in 4 hours" },
      { value: "language_barrier", name: "No common language", hint: "again in 3 days" },
      { value: "wrong_person", name: "Another person answered", hint: "until the number changes" },
      { value: "bad_number", name: "Wrong number", hint: "until it changes" },
      { value: "missed_call", name: "They rang us", hint: "call back now" },
    ],
  },
];

const OUTCOME_NAMES = new Map(
  OUTCOMES.flatMap((group) => group.outcomes.map((each) => [each.value, each.name] as const)),
);

export function outcomeName(outcome: Outcome | null): string {
  return outcome === null ? "No report" : (OUTCOME_NAMES.get(outcome) ?? "Unknown");
}

const REASONS: Readonly<Record<string, string>> = {
  NO_SIGNATURE: "There is no signature on file, and a claim is open.",
  REQUIREMENT_PENDING: "They have signed; at least one document is still outstanding.",
  CALLBACK_DUE: "A callback was agreed, and its time has come.",
};

export function reasonWords(reason: string): string {
  return REASONS[reason] ?? humanised(reason);
}

const HOLDS: Readonly<Record<Hold, string>> = {
  cooling: "are new and left in peace for two hours",
  next_call: "were called lately",
  callback: "have agreed another time",
  unreported_call: "rest after a call without a report",
  daily_cap: "have been tried often enough today",
  period_cap: "have been tried often enough this month",
  shared_phone: "share a phone with a person just called",
};

export const CONVERSIONS: Readonly<Record<Conversion, string>> = {
  signature_obtained: "Their signature has arrived.",
  requirements_met: "Nothing is outstanding any more.",
  claims_ended: "All of their claims have ended.",
};

/** Why no person can be called now, in sentences, the most useful first. */
export function emptySentences(empty: EmptyQueue, stats: QueueStats | undefined): string[] {
  const sentences: string[] = [];
  const [pause] = empty.pauses;
  if (pause !== undefined) {
    const until = pause.ends_at === null ? "" : ` until ${when(pause.ends_at)}`;
    sentences.push(`Calls are paused${until}: ${pause.reason}`);
  }
  if (empty.calling_hours_begin_at !== null) {
    sentences.push(`It is outside calling hours, which begin ${when(empty.calling_hours_begin_at)}.`);
  }
  if (empty.next_due_at !== null) {
    sentences.push(`The next person can be called ${when(empty.next_due_at)}.`);
  }
  if (empty.waiting > 0) {
    sentences.push(`${people(empty.waiting)} may not be called yet${heldBack(stats)}.`);
  }
  if (empty.assigned > 0) {
    sentences.push(`${people(empty.assigned)} ${empty.assigned === 1 ? "is" : "are"} with other agents.`);
  }
  if (sentences.length === 0) sentences.push("No person is in this queue.");
  return sentences;
}

function heldBack(stats: QueueStats | undefined): string {
  const parts = Object.entries(stats?.holds ?? {})
    .filter(([hold, count]) => count > 0 && hold in HOLDS)
    .sort(([, a], [, b]) => b - a)
    .map(([hold, count]) => `${count} ${HOLDS[hold as Hold]}`);
  return parts.length === 0 ? "" : `: ${parts.join(", ")}`;
}

export function people(count: number): string {
  return count === 1 ? "1 person" : `${count.toLocaleString("en-GB")} people`;
}

/** SOME_CODE, or some_code, as words. */
export function humanised(code: string): string {
  const words = code.replaceAll("_", " ").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

// One zone for server and browser, whatever theirs: what the server renders is what is shown.
const timeZone = "Europe/London";
const TIME = { timeZone, hour: "2-digit", minute: "2-digit" } as const;
const DAY = { timeZone, weekday: "short", day: "numeric", month: "short" } as const;

/** A time as people say it: today by the clock alone. */
export function when(moment: string, now: Date = new Date()): string {
  const date = new Date(moment);
  const time = date.toLocaleTimeString("en-GB", TIME);
  const days = dayNumber(date) - dayNumber(now);
  if (days === 0) return `today at ${time}`;
  if (days === 1) return `tomorrow at ${time}`;
  if (days === -1) return `yesterday at ${time}`;
  // Half a year away it needs its year.
  const year = Math.abs(days) > 180 ? ({ year: "numeric" } as const) : {};
  return `${date.toLocaleDateString("en-GB", { ...DAY, ...year })} at ${time}`;
}

export function day(date: string): string {
  return new Date(date).toLocaleDateString("en-GB", {
    timeZone: "UTC",
    day: "numeric",
    month: "long",
    year: "numeric",
  });
}

export function age(dateOfBirth: string, now: Date = new Date()): number {
  const [year = 0, month = 1, dayOfMonth = 1] = dateOfBirth.split("-").map(Number);
  const hadBirthday =
    now.getMonth() + 1 > month || (now.getMonth() + 1 === month && now.getDate() >= dayOfMonth);
  return now.getFullYear() - year - (hadBirthday ? 0 : 1);
}

/** +447700900123 as it is read out: 07700 900123. */
export function spokenPhone(phone: string): string {
  const uk = /^\+44(\d{4})(\d{6})$/.exec(phone);
  return uk ? `0${uk[1]} ${uk[2]}` : phone;
}

export function pounds(amount: string): string {
  // A decimal string stays one: money is never a float.
  const [whole = "0", pence = "00"] = amount.split(".");
  return `£${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${pence.padEnd(2, "0")}`;
}

function dayNumber(date: Date): number {
  return Date.parse(date.toLocaleDateString("en-CA", { timeZone })) / 86_400_000;
}
