"use client";

import type { Outcome } from "@dialler/client";
import { useRecordOutcome } from "@dialler/client/react";
import { useId, useState, type FormEvent } from "react";

import { OUTCOMES } from "@/lib/words";

import { Failure } from "./failure";
import styles from "./outcome-form.module.css";
import type { Finished } from "./workspace";

const WITH_CALLBACK: ReadonlySet<Outcome> = new Set(["call_back", "going_to_complete", "might_complete", "language_barrier"]);
const WITH_NOTES: ReadonlySet<Outcome> = new Set(["do_not_contact", "deceased"]);

export function OutcomeForm(properties: {
  readonly assignmentId: string;
  readonly onRecorded: (how: Finished) => void;
}) {
  const { assignmentId, onRecorded } = properties;
  const id = useId();
  const record = useRecordOutcome();
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [callbackAt, setCallbackAt] = useState("");
  const [notes, setNotes] = useState("");
  const mayCallBack = outcome !== null && WITH_CALLBACK.has(outcome);
  const needsNotes = outcome !== null && WITH_NOTES.has(outcome);

  function submit(event: FormEvent): void {
    event.preventDefault();
    // A second press while the first is on its way is the same press.
    if (outcome === null || record.isPending) return;
    const at = mayCallBack && callbackAt !== "" ? new Date(callbackAt).toISOString() : null;
    record.mutate(
      { assignmentId, outcome, notes, ...(at !== null && { callback_at: at }) },
      { onSuccess: (recorded) => onRecorded({ kind: "recorded", outcome, recorded }) },
    );
  }

  return (
    <form className="panel" onSubmit={submit} aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`}>How did it end?</h2>
      <div className={styles.groups}>
        {OUTCOMES.map((group) => (
          <fieldset key={group.heading} className={styles.group}>
            <legend>{group.heading}</legend>
            {group.outcomes.map((each) => (
              <label key={each.value} className={styles.outcome} data-chosen={outcome === each.value}>
                <input
                  type="radio"
                  name={`${id}-outcome`}
                  value={each.value}
                  required
                  checked={outcome === each.value}
                  onChange={() => setOutcome(each.value)}
                />
                <span>{each.name}</span>
                <span className="muted">{each.hint}</span>
              </label>
            ))}
          </fieldset>
        ))}
      </div>
      {mayCallBack && (
        <CallbackTime value={callbackAt} isRequired={outcome === "call_back"} onChange={setCallbackAt} />
      )}
      <label className={styles.label} htmlFor={`${id}-notes`}>
        Notes {needsNotes ? "(required: why they are never to be called again)" : "(optional)"}
      </label>
      <textarea
        id={`${id}-notes`}
        rows={3}
        maxLength={10_000}
        required={needsNotes}
        value={notes}
        onChange={(event) => setNotes(event.target.value)}
      />
      {record.error && <Failure error={record.error} what="The outcome was not recorded" />}
      <button type="submit" className="primary" disabled={record.isPending}>
        {record.isPending ? "Recording …" : "Record outcome"}
      </button>
    </form>
  );
}

function CallbackTime(properties: {
  readonly value: string;
  readonly isRequired: boolean;
  readonly onChange: (value: string) => void;
}) {
  const id = useId();
  return (
    <div className={styles.callback}>
      <label className={styles.label} htmlFor={id}>
        Call back at {properties.isRequired ? "" : "(optional)"}
      </label>
      <input
        id={id}
        type="datetime-local"
        required={properties.isRequired}
        min={localInput(new Date())}
        value={properties.value}
        onChange={(event) => properties.onChange(event.target.value)}
      />
      <div className={styles.quick}>
        {QUICK.map(([name, time]) => (
          <button key={name} type="button" onClick={() => properties.onChange(localInput(time()))}>
            {name}
          </button>
        ))}
      </div>
    </div>
  );
}

const QUICK: readonly (readonly [string, () => Date])[] = [
  ["In an hour", () => new Date(Date.now() + 3_600_000)],
  ["Tomorrow at 10", () => tomorrowAt(10)],
  ["Tomorrow at 18", () => tomorrowAt(18)],
];

function tomorrowAt(hour: number): Date {
  const date = new Date();
  date.setDate(date.getDate() + 1);
  date.setHours(hour, 0, 0, 0);
  return date;
}

/** A time as `datetime-local` wants it: by the clock of this computer, to the minute. */
function localInput(date: Date): string {
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 16);
}
