import type { DiallerClient } from "@dialler/client";
import { initTRPC } from "@trpc/server";
import { z } from "zod";

const t = initTRPC.context<{ dialler: DiallerClient }>().create();

export const router = t.router({
  context: t.procedure
    .input(z.object({ userId: z.string() }))
    .query(({ ctx, input, signal }) => ctx.dialler.context(input.userId, { signal })),
});
