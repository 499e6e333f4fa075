"use client";

import type { Queues, StreamStatus } from "@dialler/client";

import styles from "./top-bar.module.css";

const LIVE = {
  live: "Live",
  connecting: "Connecting …",
  waiting: "Reconnecting …",
  ended: "Not live",
  off: "Mock data",
} as const satisfies Record<StreamStatus | "off", string>;

export function TopBar(properties: {
  readonly agentId: string;
  readonly live: StreamStatus | "off";
  readonly queues: Queues | undefined;
}) {
  const { agentId, live, queues } = properties;

  async function signOut(): Promise<void> {
    await fetch("/api/session", { method: "DELETE" });
    // A whole new page: nothing of the people seen stays in memory.
    window.location.assign("/login");
  }

  return (
    <header className={styles.bar}>
      <span className={styles.brand}>Desk</span>
      <span className={styles.live} data-status={live} role="status">
        {LIVE[live]}
      </span>
      {queues && (
        <dl className={styles.figures} aria-label="Today">
          <Figure name="Calls today" value={queues.calls_today} />
          <Figure name="Conversions" value={queues.conversions_today} />
          <Figure name="Wrong calls prevented" value={queues.wrong_calls_prevented_today} />
        </dl>
      )}
      <span className={styles.agent}>{agentId}</span>
      <button type="button" onClick={() => void signOut()}>
        Sign out
      </button>
    </header>
  );
}

function Figure({ name, value }: { readonly name: string; readonly value: number }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value.toLocaleString("en-GB")}</dd>
    </div>
  );
}
