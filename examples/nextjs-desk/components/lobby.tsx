"use client";

import type { Claimed, DiallerError, QueueName, QueueStats } from "@dialler/client";
import { useEffect, useRef, useState } from "react";

import { CONVERSIONS, emptySentences, outcomeName, people, QUEUES, when } from "@/lib/words";

import { Failure } from "./failure";
import styles from "./lobby.module.css";
import type { Finished } from "./workspace";

/** Between two calls: pick a queue, ask for the next person. */
export function Lobby(properties: {
  readonly queues: readonly QueueStats[];
  readonly claimed: Claimed | null;
  readonly isBusy: boolean;
  readonly error: DiallerError | null;
  readonly finished: Finished | null;
  readonly onClaim: (queue: QueueName) => void;
}) {
  const { queues, claimed, isBusy, error, finished, onClaim } = properties;
  const [queue, setQueue] = useQueueChoice();
  const button = useRef<HTMLButtonElement>(null);

  useEffect(() => {
    // After a call the next is one press of Enter away.
    if (finished) button.current?.focus();
  }, [finished]);
  useNextKey(() => {
    if (!isBusy) onClaim(queue);
  });

  return (
    <section className="panel" aria-labelledby="lobby-title">
      <h2 id="lobby-title">Who is next?</h2>
      {finished && <FinishedNotice finished={finished} />}
      <fieldset className={styles.queues}>
        <legend className="visually-hidden">Queue</legend>
        {(Object.keys(QUEUES) as QueueName[]).map((name) => (
          <QueueOption
            key={name}
            name={name}
            stats={queues.find((each) => each.queue === name)}
            isChosen={queue === name}
            onChoose={() => setQueue(name)}
          />
        ))}
      </fieldset>
      <div className={styles.actions}>
        <button
          ref={button}
          type="button"
          className="primary"
          disabled={isBusy}
          onClick={() => onClaim(queue)}
        >
          {isBusy ? "Finding the right person …" : "Call next person"}
        </button>
        <span className="muted">
          or press <kbd>N</kbd>
        </span>
      </div>
      <div aria-live="polite" className={styles.answer}>
        {error && <Failure error={error} what="No person was handed to you" />}
        {!error && claimed?.empty && <Empty claimed={claimed} stats={queues.find((each) => each.queue === queue)} />}
      </div>
    </section>
  );
}

function QueueOption(properties: {
  readonly name: QueueName;
  readonly stats: QueueStats | undefined;
  readonly isChosen: boolean;
  readonly onChoose: () => void;
}) {
  const { name, stats, isChosen, onChoose } = properties;
  return (
    <label className={styles.queue} data-chosen={isChosen}>
      <input type="radio" name="queue" value={name} checked={isChosen} onChange={onChoose} />
      <span className={styles.name}>{QUEUES[name].name}</span>
      <span className="muted">{QUEUES[name].about}</span>
      {stats && (
        <span className={styles.counts}>
          <strong>{stats.ready.toLocaleString("en-GB")}</strong> ready ·{" "}
          {stats.waiting.toLocaleString("en-GB")} waiting · {stats.assigned} in a call
        </span>
      )}
    </label>
  );
}

function Empty(properties: {
  readonly claimed: Claimed;
  readonly stats: QueueStats | undefined;
}) {
  const { claimed, stats } = properties;
  if (claimed.empty === null) return null;
  const { rejected_by_live_check: prevented } = claimed;
  return (
    <div className="notice warn" data-testid="empty">
      <strong>No person can be called now.</strong>
      <ul className={styles.reasons}>
        {emptySentences(claimed.empty, stats).map((each) => (
          <li key={each}>{each}</li>
        ))}
        {prevented > 0 && (
          <li>
            {people(prevented)} would have been next, but {prevented === 1 ? "has" : "have"} just done
            what we would have asked for.
          </li>
        )}
      </ul>
    </div>
  );
}

function FinishedNotice({ finished }: { readonly finished: Finished }) {
  if (finished.kind === "given_back") {
    return (
      <p role="status" className="notice">
        Released. Another agent may call them.
      </p>
    );
  }
  const { call_state: state, conversion } = finished.recorded;
  return (
    <p role="status" className="notice good" data-testid="recorded">
      <strong>Recorded: {outcomeName(finished.outcome).toLowerCase()}.</strong>{" "}
      {conversion !== null && CONVERSIONS[conversion]}{" "}
      {state.open_callback?.scheduled_for
        ? `Callback ${when(state.open_callback.scheduled_for)}.`
        : state.next_call_at && `Not called again before ${when(state.next_call_at)}.`}
    </p>
  );
}

const CHOICE = "desk-queue";

/** The queue chosen last, remembered for this browser. */
function useQueueChoice(): [QueueName, (queue: QueueName) => void] {
  const [queue, setQueue] = useState<QueueName>("unsigned_users");
  useEffect(() => {
    const kept = window.localStorage.getItem(CHOICE);
    if (kept !== null && kept in QUEUES) setQueue(kept as QueueName);
  }, []);
  return [
    queue,
    (chosen) => {
      window.localStorage.setItem(CHOICE, chosen);
      setQueue(chosen);
    },
  ];
}

/** N asks for the next person, unless something is being typed. */
function useNextKey(act: () => void): void {
  const latest = useRef(act);
  useEffect(() => {
    latest.current = act;
  });
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      const isTyping = target.matches("input:not([type=radio]), textarea, select");
      if (event.key.toLowerCase() !== "n" || isTyping || event.repeat) return;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      latest.current();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}
