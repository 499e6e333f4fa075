"use client";

import { useAssignment, useClaimNext, useLive, useQueues } from "@dialler/client/react";
import type { Assignment, Claimed, Outcome, QueueName, Recorded } from "@dialler/client";
import { useEffect, useState } from "react";

import { Callbacks } from "./callbacks";
import { Call } from "./call";
import type { FirstView } from "./desk";
import { Lobby } from "./lobby";
import { Objection } from "./objection";
import { Search } from "./search";
import { TopBar } from "./top-bar";
import { usePresence } from "./use-presence";
import styles from "./workspace.module.css";

/** What a call came to, told when the agent is back among the queues. */
export type Finished =
  | { readonly kind: "recorded"; readonly outcome: Outcome; readonly recorded: Recorded }
  | { readonly kind: "given_back" };

export function Workspace(properties: {
  readonly agentId: string;
  readonly isLive: boolean;
  readonly first: FirstView;
  readonly isSessionOver: boolean;
}) {
  const { first } = properties;
  const [objectedUserId, setObjectedUserId] = useState<string | null>(null);
  const live = useLive({
    enabled: properties.isLive,
    onEvent: (event) => {
      if (event.type === "objection_recorded") setObjectedUserId(event.user_id);
    },
  });
  const queues = useQueues({ initialData: first.queues });
  const assignment = useAssignment({ initialData: first.assignment }).data ?? null;
  const claim = useClaimNext();
  const [call, setCall] = useState<Assignment | null>(first.assignment);
  const [finished, setFinished] = useState<Finished | null>(null);
  const isSessionOver = properties.isSessionOver || (live.error?.reason ?? "") === "NO_SESSION";
  usePresence(call === null ? "available" : "on_call", !isSessionOver);

  // The call stays on the screen when its assignment ends elsewhere: the agent is still talking.
  useEffect(() => {
    if (assignment !== null) setCall(assignment);
  }, [assignment]);

  function claimFrom(queue: QueueName): void {
    setFinished(null);
    setObjectedUserId(null);
    claim.mutate({ queues: [queue] });
  }

  function finish(how: Finished): void {
    setCall(null);
    setFinished(how);
    claim.reset();
  }

  return (
    <>
      <TopBar
        agentId={properties.agentId}
        live={properties.isLive ? live.status : "off"}
        queues={queues.data}
      />
      {isSessionOver && <SessionOver />}
      <main className={styles.main}>
        {call === null ? (
          <Lobby
            queues={queues.data?.queues ?? []}
            claimed={claim.data ?? null}
            isBusy={claim.isPending}
            error={claim.error}
            finished={finished}
            onClaim={claimFrom}
          />
        ) : (
          <Call
            key={call.assignment_id}
            assignment={call}
            hasObjected={objectedUserId === call.user_id}
            isStillMine={assignment?.assignment_id === call.assignment_id}
            reading={first.reading}
            prevented={preventedBefore(call, claim.data)}
            onFinished={finish}
          />
        )}
        <aside className={styles.side} aria-label="Callbacks, search and objections">
          <Callbacks first={first.callbacks} />
          <Search />
          <section className="panel" aria-labelledby="stranger-title">
            <h2 id="stranger-title">A stranger answered?</h2>
            <Objection />
          </section>
        </aside>
      </main>
    </>
  );
}

/** How many people the live check turned down before this one was handed out. */
function preventedBefore(call: Assignment, claimed: Claimed | undefined): number {
  const isThis = claimed?.assignment?.assignment_id === call.assignment_id;
  return isThis ? claimed.rejected_by_live_check : 0;
}

function SessionOver() {
  return (
    <div role="alert" className={`notice danger ${styles.over}`}>
      <p>
        <strong>Your session has ended.</strong> What you have typed is still here: copy your notes if
        you need them, then sign in again. You keep the person you hold for two minutes.
      </p>
      <a className="button primary" href="/login?ended=1">
        Sign in again
      </a>
    </div>
  );
}
