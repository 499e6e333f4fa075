import { ConnectionError, DiallerClient, ProblemError } from "@dialler/client";

export async function POST(request: Request): Promise<Response> {
  const token = request.headers.get("authorization")?.replace(/^Bearer /, "");
  const client = new DiallerClient({ baseUrl: process.env["DIALLER_URL"] ?? "", token: () => token });
  try {
    return Response.json(await client.claimNext({}, { signal: request.signal }));
  } catch (error) {
    if (error instanceof ProblemError) {
      return Response.json({ reason: error.reason }, { status: error.status });
    }
    if (error instanceof ConnectionError) {
      return Response.json({ reason: error.reason }, { status: 503 });
    }
    throw error;
  }
}
