import type { ContextCallState } from "@dialler/client";

import { outcomeName, when } from "@/lib/words";

import styles from "./history.module.css";

export function History({ attempts }: { readonly attempts: ContextCallState["recent_attempts"] }) {
  return (
    <section className="panel" aria-labelledby="history-title">
      <h2 id="history-title">Calls so far</h2>
      {attempts.length === 0 ? (
        <p className="muted">No agent has called them yet.</p>
      ) : (
        <ol className={styles.calls}>
          {attempts.map((each) => (
            <li key={`${each.ended_at} ${each.agent_id}`}>
              <span className={styles.outcome}>{outcomeName(each.outcome)}</span>
              <span className="muted">
                {each.ended_at && when(each.ended_at)} · {each.agent_id}
              </span>
              {each.notes && <span className={styles.notes}>{each.notes}</span>}
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
