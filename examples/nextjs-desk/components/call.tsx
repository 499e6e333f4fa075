"use client";

import type { Assignment, Context, ContextReading } from "@dialler/client";
import { useHeartbeat, usePersonContext, useRelease } from "@dialler/client/react";
import { useEffect, useRef, useState } from "react";

import { changesBetween, type Change } from "@/lib/changes";
import { people, QUEUES, reasonWords, when } from "@/lib/words";

import styles from "./call.module.css";
import { Claims } from "./claims";
import { Failure } from "./failure";
import { History } from "./history";
import { Objection } from "./objection";
import { OutcomeForm } from "./outcome-form";
import { Person } from "./person";
import type { Finished } from "./workspace";

/** One person, from hand-out to outcome. */
export function Call(properties: {
  readonly assignment: Assignment;
  readonly isStillMine: boolean;
  /** Whether the stream has told that the person must not be contacted any more. */
  readonly hasObjected: boolean;
  readonly reading: ContextReading | null;
  readonly prevented: number;
  readonly onFinished: (how: Finished) => void;
}) {
  const { assignment, isStillMine, prevented, onFinished } = properties;
  const first = properties.reading;
  const isFirst = first?.context.user?.user_id === assignment.user_id;
  const reading = usePersonContext(assignment.user_id, {
    initialData: isFirst ? first : undefined,
  });
  const heartbeat = useHeartbeat(isStillMine ? assignment.assignment_id : null);
  const release = useRelease();
  const context = reading.data?.context;
  const changes = useChanges(context);

  return (
    <div className={styles.call}>
      {(properties.hasObjected || context?.call_state?.state === "suppressed") && (
        <p role="alert" className="notice danger" data-testid="objection">
          <strong>This person has asked not to be contacted.</strong> Do not call. If you are
          speaking already, say that it is noted and end the call.
        </p>
      )}
      <Notices
        isStale={reading.data?.isStale ?? false}
        isLate={heartbeat.isLate}
        isLost={!isStillMine}
        prevented={prevented}
        onLeave={() => onFinished({ kind: "given_back" })}
      />
      {context?.user ? (
        <Person user={context.user} />
      ) : (
        <section className="panel" aria-busy={reading.isPending}>
          {reading.error ? (
            <Failure error={reading.error} what="The person cannot be shown" />
          ) : (
            "Fetching what we know of them …"
          )}
        </section>
      )}
      <Changes changes={changes} />
      <section className="panel" aria-labelledby="why-title">
        <h2 id="why-title">Why you are calling</h2>
        <p className={styles.why}>
          {assignment.queue && <span className={styles.queue}>{QUEUES[assignment.queue].name}</span>}
          {reasonWords(assignment.reason)}
        </p>
        {isDoneMeanwhile(assignment, context) && (
          <p className="notice good">
            <strong>That has happened meanwhile.</strong> Thank them, and record “Completed the form”.
          </p>
        )}
        {context?.call_state?.open_callback && (
          <p>
            Callback agreed for {when(context.call_state.open_callback.scheduled_for ?? "")}
            {context.call_state.open_callback.notes && `: ${context.call_state.open_callback.notes}`}
          </p>
        )}
        <p className="muted">
          {attemptsWords(context)} Score {assignment.score.toFixed(0)} of 200, where 0 is called first.
        </p>
      </section>
      <OutcomeForm assignmentId={assignment.assignment_id} onRecorded={onFinished} />
      {isStillMine && (
        <section className="panel">
          <Objection userId={assignment.user_id} />
        </section>
      )}
      {context && <Claims claims={context.claims} />}
      {context && <History attempts={context.call_state?.recent_attempts ?? []} />}
      {isStillMine && (
        <div className={styles.release}>
          <button
            type="button"
            disabled={release.isPending}
            onClick={() =>
              release.mutate(
                { assignmentId: assignment.assignment_id, reason: "skipped" },
                { onSuccess: () => onFinished({ kind: "given_back" }) },
              )
            }
          >
            Skip without calling
          </button>
          <span className="muted">They come back to the queue in a quarter of an hour.</span>
          {release.error && <Failure error={release.error} what="They were not released" />}
        </div>
      )}
    </div>
  );
}

function Notices(properties: {
  readonly isStale: boolean;
  readonly isLate: boolean;
  readonly isLost: boolean;
  readonly prevented: number;
  readonly onLeave: () => void;
}) {
  return (
    <>
      {properties.isLost && (
        <div role="alert" className={`notice warn ${styles.lost}`}>
          <span>
            <strong>This call was taken back</strong>, because it was quiet for too long or a supervisor
            took it. If you have spoken, record how it ended: it still counts.
          </span>
          <button type="button" onClick={properties.onLeave}>
            Back to the queues
          </button>
        </div>
      )}
      {properties.isLate && !properties.isLost && (
        <p role="alert" className="notice warn">
          The dialler has not heard from this desk for a moment. Carry on: we keep trying.
        </p>
      )}
      {properties.isStale && (
        <p role="status" className="notice warn">
          The main app does not answer; this is the last we know.
        </p>
      )}
      {properties.prevented > 0 && (
        <p role="status" className="notice good" data-testid="prevented">
          {people(properties.prevented)} ahead of this one had just done what we would have asked for,
          so you were not sent to them.
        </p>
      )}
    </>
  );
}

interface SeenChange extends Change {
  readonly at: Date;
}

/** What has changed about the person while this call is on the screen. */
function useChanges(context: Context | undefined): readonly SeenChange[] {
  const before = useRef(context);
  const [changes, setChanges] = useState<readonly SeenChange[]>([]);
  useEffect(() => {
    if (context === undefined || context === before.current) return;
    const found = before.current ? changesBetween(before.current, context) : [];
    before.current = context;
    if (found.length === 0) return;
    const at = new Date();
    setChanges((earlier) => [...found.map((each) => ({ ...each, at })), ...earlier].slice(0, 8));
  }, [context]);
  return changes;
}

function Changes({ changes }: { readonly changes: readonly SeenChange[] }) {
  return (
    <div aria-live="assertive" data-testid="changes">
      {changes.length > 0 && (
        <div className={`notice ${changes.some((each) => each.isGood) ? "good" : "warn"}`}>
          <ul className={styles.changes}>
            {changes.map((each) => (
              <li key={`${each.at.getTime()} ${each.text}`}>
                <strong>{each.text}</strong>{" "}
                <span className="muted">
                  {each.at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" })}
                </span>
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}

/** Whether what the call was for has been done since it was handed out. */
function isDoneMeanwhile(assignment: Assignment, context: Context | undefined): boolean {
  if (assignment.reason === "NO_SIGNATURE") return context?.user?.has_signature ?? false;
  return context?.call_state?.state === "out";
}

function attemptsWords(context: Context | undefined): string {
  const state = context?.call_state;
  if (!state) return "";
  if (state.attempts === 0) return "Never called before.";
  const last = state.last_contact_at === null ? "" : `, last ${when(state.last_contact_at)}`;
  return `${state.attempts === 1 ? "Called once" : `Called ${state.attempts} times`} before${last}.`;
}
