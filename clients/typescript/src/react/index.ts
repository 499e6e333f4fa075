"use client";

export { useLive, type Live } from "./live.js";
export { DiallerProvider, useDialler } from "./provider.js";
export {
  diallerKeys,
  useAssignment,
  useCallbacks,
  usePersonContext,
  useQueues,
} from "./reads.js";
export {
  useClaimNext,
  useHeartbeat,
  useRecordObjection,
  useRecordOutcome,
  useRelease,
  type Heartbeat,
} from "./writes.js";
