import { ConnectionError, ProblemError, type DiallerError } from "@dialler/client";

import { when } from "@/lib/words";

/** What went wrong, what it means for the agent, and what finds it in the logs. */
export function Failure({ error, what }: { readonly error: DiallerError; readonly what: string }) {
  const traceId = error instanceof ProblemError ? error.traceId : null;
  return (
    <div role="alert" className="notice danger">
      <strong>{what}.</strong> {advice(error)}
      {traceId !== null && (
        <>
          {" "}
          <small className="muted">
            {error.reason}, trace <code>{traceId}</code>
          </small>
        </>
      )}
    </div>
  );
}

function advice(error: DiallerError): string {
  if (error instanceof ConnectionError) {
    return "No answer came. Press the button again: nothing is ever done twice.";
  }
  const opensAt = error instanceof ProblemError ? error.metadata["next_open_at"] : undefined;
  if (error.reason === "CALLBACK_OUTSIDE_HOURS" && opensAt !== undefined) {
    return `The person may not be called at that time. The next possible time is ${when(opensAt)}.`;
  }
  const known = ADVICE[error.reason];
  if (known !== undefined) return known;
  if (!(error instanceof ProblemError)) return "Try again.";
  if (error.isSessionOver) return "Sign in again.";
  if (error.status === 422 || error.status === 400) return `${sentence(error.detail)} Please correct it.`;
  if (error.isAmbiguous) return "The dialler is not well for the moment. Press the button again.";
  return sentence(error.detail);
}

const ADVICE: Readonly<Record<string, string>> = {
  ASSIGNMENT_NOT_LIVE: "This call has already ended.",
  ASSIGNMENT_NOT_YOURS: "Another agent holds this person now.",
  CALLBACK_NOT_IN_FUTURE: "The callback must lie in the future.",
  PHONE_NOT_VALID: "That is not exactly one whole phone number.",
  NOTES_REQUIRED: "Please say why in the notes.",
  QUEUE_NOT_ALLOWED: "Your supervisor has not given you this queue.",
  PERSON_NOT_YOURS: "You no longer hold this person.",
};

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
