import "server-only";

import { ConnectionError, ProblemError, type DiallerClient } from "@dialler/client";
import { initTRPC, TRPCError } from "@trpc/server";
import { z } from "zod";

const t = initTRPC.context<{ dialler: DiallerClient | null }>().create();

/** A procedure for who is signed in; the gateway's problems become tRPC's errors. */
const agent = t.procedure.use(async ({ ctx, next }) => {
  if (ctx.dialler === null) throw new TRPCError({ code: "UNAUTHORIZED" });
  const result = await next({ ctx: { dialler: ctx.dialler } });
  if (!result.ok) throw asTrpc(result.error);
  return result;
});

export const router = t.router({
  /** People by name, number or e-mail address; whom the agent found it may open. */
  search: agent
    .input(z.object({ words: z.string().trim().min(2).max(200) }))
    .query(({ ctx, input, signal }) =>
      ctx.dialler.search({ ...asSearch(input.words), limit: 8 }, { signal }),
    ),
  calls: agent
    .input(z.object({ userId: z.string().regex(/^[1-9][0-9]{0,19}$/) }))
    .query(({ ctx, input, signal }) => ctx.dialler.calls(input.userId, { pageSize: 10, signal })),
});

export type Router = typeof router;

function asSearch(words: string): { phone: string } | { email_address: string } | { name: string } {
  if (words.includes("@")) return { email_address: words };
  return /^[+0-9][0-9 ()-]*$/.test(words) ? { phone: words } : { name: words };
}

function asTrpc(error: TRPCError): TRPCError {
  const { cause } = error;
  if (cause instanceof ConnectionError) {
    return new TRPCError({ code: "SERVICE_UNAVAILABLE", message: cause.reason, cause });
  }
  if (!(cause instanceof ProblemError)) return error;
  const code = CODES.get(cause.status) ?? "INTERNAL_SERVER_ERROR";
  return new TRPCError({ code, message: cause.reason, cause });
}

const CODES = new Map([
  [400, "BAD_REQUEST"],
  [401, "UNAUTHORIZED"],
  [403, "FORBIDDEN"],
  [404, "NOT_FOUND"],
  [409, "CONFLICT"],
  [422, "UNPROCESSABLE_CONTENT"],
  [429, "TOO_MANY_REQUESTS"],
  [503, "SERVICE_UNAVAILABLE"],
] as const satisfies readonly (readonly [number, TRPCError["code"]])[]) as ReadonlyMap<
  number,
  TRPCError["code"]
>;
