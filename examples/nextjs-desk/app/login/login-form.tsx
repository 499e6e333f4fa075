"use client";

import { useRouter } from "next/navigation";
import { useId, useState, type FormEvent } from "react";

import styles from "./login.module.css";

export function LoginForm() {
  const router = useRouter();
  const id = useId();
  const [problem, setProblem] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);

  async function signIn(event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const token = new FormData(event.currentTarget).get("token");
    setBusy(true);
    setProblem(null);
    try {
      const answer = await fetch("/api/session", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ token }),
      });
      if (answer.ok) {
        router.replace("/desk");
        return;
      }
      const { message } = (await answer.json()) as { message: string };
      setProblem(message);
    } catch {
      setProblem("The desk does not answer. Is your connection up?");
    }
    setBusy(false);
  }

  return (
    <form onSubmit={(event) => void signIn(event)} className={styles.form}>
      <label htmlFor={`${id}-token`}>Token</label>
      <textarea
        id={`${id}-token`}
        name="token"
        rows={5}
        required
        autoFocus
        spellCheck={false}
        autoComplete="off"
        aria-describedby={`${id}-hint`}
        aria-invalid={problem !== null}
      />
      <p id={`${id}-hint`} className="muted">
        For development: <code>make run</code> prints an agent’s token, and{" "}
        <code>python -m gateway.token --role agent --sub agent-1</code> makes one. In production your
        own sign-in takes this page’s place.
      </p>
      {problem !== null && (
        <p role="alert" className="notice danger">
          {problem}
        </p>
      )}
      <button type="submit" className="primary" disabled={isBusy}>
        {isBusy ? "Signing in …" : "Sign in"}
      </button>
    </form>
  );
}
