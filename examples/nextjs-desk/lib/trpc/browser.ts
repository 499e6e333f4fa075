import { createTRPCClient, httpLink } from "@trpc/client";

import type { Router } from "@/lib/trpc/router";

/** The browser's typed way to this app's tRPC router. Posted, so that no name stands in an address. */
export const trpc = createTRPCClient<Router>({
  links: [httpLink({ url: "/api/trpc", methodOverride: "POST" })],
});
