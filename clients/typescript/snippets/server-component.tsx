import { DiallerClient } from "@dialler/client";
import { cookies } from "next/headers";

export default async function Queues() {
  const token = (await cookies()).get("session")?.value;
  // One client for one request: its token is one agent's.
  const client = new DiallerClient({ baseUrl: process.env["DIALLER_URL"] ?? "", token: () => token });
  const { queues } = await client.queues();
  return (
    <ul>
      {queues.map((each) => (
        <li key={each.queue}>{each.ready} ready</li>
      ))}
    </ul>
  );
}
