"use client";

import { useQuery } from "@tanstack/react-query";
import { useId, useState, type FormEvent } from "react";

import { trpc } from "@/lib/trpc/browser";
import { day, outcomeName, spokenPhone, when } from "@/lib/words";

import { Objection } from "./objection";
import styles from "./side.module.css";

/** A person rings in: who is it, and what was said before? Asked through the tRPC router. */
export function Search() {
  const id = useId();
  const [words, setWords] = useState("");
  const found = useQuery({
    queryKey: ["trpc", "search", words],
    queryFn: ({ signal }) => trpc.search.query({ words }, { signal }),
    enabled: words.length >= 2,
    retry: false,
    gcTime: 0,
  });

  function search(event: FormEvent<HTMLFormElement>): void {
    event.preventDefault();
    setWords(String(new FormData(event.currentTarget).get("words") ?? "").trim());
  }

  return (
    <section className="panel" aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`}>A person rings in?</h2>
      <form onSubmit={search} role="search" className={styles.search}>
        <label className="visually-hidden" htmlFor={`${id}-words`}>
          Name, number or e-mail address
        </label>
        <input id={`${id}-words`} name="words" placeholder="Name or number" minLength={2} required />
        <button type="submit">Find</button>
      </form>
      <div aria-live="polite">
        {found.error && <p className="notice danger">The search did not work: {found.error.message}</p>}
        {found.data?.people.length === 0 && <p className="muted">No person is known by that.</p>}
        {found.data && found.data.people.length > 0 && (
          <ul className={styles.list}>
            {found.data.people.map((each) => (
              <li key={each.user_id}>
                <strong>{[each.first_name, each.last_name].filter(Boolean).join(" ")}</strong>
                <span className="muted">
                  {each.phone_number && spokenPhone(each.phone_number)}
                  {each.date_of_birth && ` · born ${day(each.date_of_birth)}`}
                </span>
                <LastCalls userId={each.user_id} />
                <Objection userId={each.user_id} />
              </li>
            ))}
          </ul>
        )}
      </div>
    </section>
  );
}

function LastCalls({ userId }: { readonly userId: string }) {
  const [isOpen, setOpen] = useState(false);
  const { data, isPending } = useQuery({
    queryKey: ["trpc", "calls", userId],
    queryFn: ({ signal }) => trpc.calls.query({ userId }, { signal }),
    enabled: isOpen,
    retry: false,
    gcTime: 0,
  });
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Calls</summary>
      {isOpen && isPending && <p className="muted">…</p>}
      {data?.calls.length === 0 && <p className="muted">None so far.</p>}
      {data?.calls.map((each) => (
        <p key={each.assignment_id}>
          {outcomeName(each.outcome)}{" "}
          <span className="muted">{each.ended_at && when(each.ended_at)}</span>
        </p>
      ))}
    </details>
  );
}
