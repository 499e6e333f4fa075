"use client";

import { useRecordObjection } from "@dialler/client/react";
import { useId, useState, type FormEvent } from "react";

import { Failure } from "./failure";
import styles from "./objection.module.css";

/**
 * "Do not call me again", without ending a call: of a person, or of a bare number that a stranger
 * answered.
 */
export function Objection({ userId }: { readonly userId?: string }) {
  const id = useId();
  const record = useRecordObjection();
  const [phone, setPhone] = useState("");
  const [notes, setNotes] = useState("");
  const who = userId === undefined ? "this number" : "this person";

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (record.isPending) return;
    record.mutate({ notes, ...(userId === undefined ? { phone } : { user_id: userId }) });
  }

  function startAgain(): void {
    record.reset();
    setPhone("");
    setNotes("");
  }

  if (record.data) {
    return (
      <p role="status" className="notice good" data-testid="objection-recorded">
        <strong>The objection is recorded.</strong> No agent is sent to {who} again.
        {userId === undefined && (
          <button type="button" onClick={startAgain}>
            Another number
          </button>
        )}
      </p>
    );
  }
  return (
    <details>
      <summary>Asked not to be contacted</summary>
      <form onSubmit={submit} className={styles.form} aria-label={`Objection of ${who}`}>
        {userId === undefined && (
          <>
            <label htmlFor={`${id}-phone`}>Phone number</label>
            <input
              id={`${id}-phone`}
              type="tel"
              required
              maxLength={255}
              value={phone}
              onChange={(event) => setPhone(event.target.value)}
            />
          </>
        )}
        <label htmlFor={`${id}-notes`}>What was said</label>
        <textarea
          id={`${id}-notes`}
          rows={2}
          required
          maxLength={10_000}
          value={notes}
          onChange={(event) => setNotes(event.target.value)}
        />
        {record.error && <Failure error={record.error} what="The objection was not recorded" />}
        <button type="submit" disabled={record.isPending}>
          {record.isPending ? "Recording …" : "Record the objection"}
        </button>
      </form>
    </details>
  );
}
