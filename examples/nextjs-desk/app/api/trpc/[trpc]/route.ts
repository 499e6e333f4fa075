import { fetchRequestHandler } from "@trpc/server/adapters/fetch";

import { dialler } from "@/lib/dialler";
import { currentSession } from "@/lib/session";
import { router } from "@/lib/trpc/router";

export function POST(request: Request): Promise<Response> {
  return fetchRequestHandler({
    endpoint: "/api/trpc",
    req: request,
    router,
    allowMethodOverride: true,
    createContext: async () => {
      const session = await currentSession();
      return { dialler: session && dialler(session) };
    },
  });
}
