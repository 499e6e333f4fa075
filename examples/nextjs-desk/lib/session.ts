import "server-only";

import { cookies } from "next/headers";
import { redirect } from "next/navigation";

/** Who is signed in. The token stays on the server: the browser holds it in a cookie no script sees. */
export interface Session {
  readonly token: string;
  readonly agentId: string;
  readonly role: string;
  readonly expiresAt: number;
}

const COOKIE = "desk_session";

/** Return what a token says of itself. Only the gateway knows whether it is true. */
export function sessionOf(token: string): Session | null {
  try {
    const payload = JSON.parse(
      Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"),
    ) as { sub?: unknown; role?: unknown; exp?: unknown };
    if (typeof payload.sub !== "string" || typeof payload.exp !== "number") return null;
    // No calendar has the moment: the gateway would refuse the token as well.
    if (Number.isNaN(new Date(payload.exp * 1000).getTime())) return null;
    const role = typeof payload.role === "string" ? payload.role : "";
    return { token, agentId: payload.sub, role, expiresAt: payload.exp };
  } catch {
    return null;
  }
}

export async function currentSession(): Promise<Session | null> {
  const token = (await cookies()).get(COOKIE)?.value;
  return token === undefined ? null : sessionOf(token);
}

export async function requireSession(): Promise<Session> {
  return (await currentSession()) ?? redirect("/login");
}

export async function beginSession(session: Session, isSecure: boolean): Promise<void> {
  (await cookies()).set(COOKIE, session.token, {
    httpOnly: true,
    sameSite: "strict",
    secure: isSecure,
    path: "/",
    expires: new Date(session.expiresAt * 1000),
  });
}

export async function endSession(): Promise<void> {
  (await cookies()).delete(COOKIE);
}
