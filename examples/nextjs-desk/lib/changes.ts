import type { Context } from "@dialler/client";

import { humanised } from "./words";

/** Something that changed about the person while the agent was looking. */
export interface Change {
  readonly text: string;
  readonly isGood: boolean;
}

/** Return in words what differs between two readings of one person's context. */
export function changesBetween(before: Context, after: Context): Change[] {
  return [...personChanges(before, after), ...claimChanges(before, after)];
}

function personChanges({ user: old }: Context, { user }: Context): Change[] {
  if (!old || !user) return [];
  const changes: Change[] = [];
  if (!old.has_signature && user.has_signature) changes.push(good("They have just signed"));
  if (old.has_signature && !user.has_signature) changes.push(bad("Their signature was turned down"));
  if (!old.has_id_document && user.has_id_document) changes.push(good("An id document has arrived"));
  if (old.phone_number !== user.phone_number) changes.push(bad("Their phone number has changed"));
  if (old.email_address !== user.email_address) changes.push(bad("Their e-mail address has changed"));
  if (old.is_enabled && !user.is_enabled) changes.push(bad("Their account was closed"));
  if (old.status !== user.status && user.status === "inactive") {
    changes.push(bad("They are no longer a client"));
  }
  return changes;
}

function claimChanges(before: Context, after: Context): Change[] {
  const changes: Change[] = [];
  const oldClaims = new Map(before.claims.map((each) => [each.claim_id, each]));
  for (const claim of after.claims) {
    const name = claim.lender ?? "a lender";
    const old = oldClaims.get(claim.claim_id);
    if (!old) {
      changes.push(bad(`A new claim against ${name}`));
      continue;
    }
    if (old.status !== claim.status && claim.status !== null) {
      changes.push(good(`Claim against ${name}: ${humanised(claim.status).toLowerCase()}`));
    }
    const oldRequirements = new Map(old.requirements.map((each) => [each.requirement_id, each]));
    for (const each of claim.requirements) {
      const status = oldRequirements.get(each.requirement_id)?.status;
      const what = `${humanised(each.type ?? "requirement")} (${name})`;
      if (status === each.status) continue;
      if (each.status === "PENDING") changes.push(bad(`${what} is wanted`));
      else changes.push(good(`${what}: ${humanised(each.status ?? "changed").toLowerCase()}`));
    }
  }
  return changes;
}

function good(text: string): Change {
  return { text, isGood: true };
}

function bad(text: string): Change {
  return { text, isGood: false };
}
