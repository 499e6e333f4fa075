export {
  DiallerClient,
  type ContextReading,
  type DiallerOptions,
  type ImportOptions,
  type PageOptions,
  type ReadOptions,
  type WriteOptions,
} from "./client.js";
export { ConnectionError, DiallerError, ProblemError } from "./errors.js";
export type {
  EventStream,
  EventStreamOptions,
  Showing,
  Shown,
  SnapshotReason,
  StreamStatus,
  Topic,
} from "./events.js";
export type { Fetch, TokenAnswer } from "./transport.js";
export type * from "./types.js";
export { newWriteKey, WriteKeys } from "./write-keys.js";
