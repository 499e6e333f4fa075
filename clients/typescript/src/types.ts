import type { Context } from "./generated/schema.js";

export type * from "./generated/schema.js";
// `Event` is also the browser's.
export type { Event as DiallerEvent } from "./generated/schema.js";

export type Person = Context["user"] & {};
export type Claim = Context["claims"][number];
export type Requirement = Claim["requirements"][number];
export type VehiclePackage = Claim["vehicle_packages"][number];
export type ContextCallState = NonNullable<Context["call_state"]>;
