"use client";

import type { CallbackPage } from "@dialler/client";
import { useCallbacks } from "@dialler/client/react";

import { when } from "@/lib/words";

import styles from "./side.module.css";

/** The agent's own callbacks; a due one is handed out before all other people. */
export function Callbacks({ first }: { readonly first: CallbackPage }) {
  const { data } = useCallbacks({ initialData: first });
  const callbacks = data?.callbacks ?? [];
  return (
    <section className="panel" aria-labelledby="callbacks-title">
      <h2 id="callbacks-title">Your callbacks</h2>
      {callbacks.length === 0 ? (
        <p className="muted">None agreed.</p>
      ) : (
        <ul className={styles.list}>
          {callbacks.map((each) => (
            <li key={each.callback_id}>
              <strong>{each.scheduled_for && when(each.scheduled_for)}</strong>
              <span className="muted">Person {each.user_id}</span>
              {each.notes && <span>{each.notes}</span>}
            </li>
          ))}
        </ul>
      )}
      <p className="muted">When one is due, “Call next person” brings it first.</p>
    </section>
  );
}
