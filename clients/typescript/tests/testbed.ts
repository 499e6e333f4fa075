import { spawn, type ChildProcessByStdio } from "node:child_process";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";

export const REPOSITORY = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
const PYTHON = process.env["DIALLER_PYTHON"] ?? join(REPOSITORY, ".venv", "bin", "python");

/** The whole suite on this machine, with a few people. */
export class Testbed {
  readonly gateway: string;
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(
    gateway: string,
    process: ChildProcessByStdio<Writable, Readable, null>,
    lines: AsyncIterator<string>,
  ) {
    this.gateway = gateway;
    this.#process = process;
    this.#lines = lines;
  }

  static async start(options: { origin?: string; users?: number } = {}): Promise<Testbed> {
    const args = ["-m", "devstack.testbed", "--users", String(options.users ?? 150)];
    if (options.origin !== undefined) args.push("--origin", options.origin);
    const child = spawn(PYTHON, args, { cwd: REPOSITORY, stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const { gateway } = JSON.parse(await nextLine(lines)) as { gateway: string };
    return new Testbed(gateway, child, lines);
  }

  token(role: "agent" | "supervisor", subject: string, ttlSeconds = 3600): Promise<string> {
    return this.#ask<string>({ do: "token", role, subject, ttl_seconds: ttlSeconds });
  }

  async sign(userId: string): Promise<void> {
    await this.#ask({ do: "sign", user_id: userId });
  }

  async changePhone(userId: string, phoneNumber: string): Promise<void> {
    await this.#ask({ do: "change_phone", user_id: userId, phone_number: phoneNumber });
  }

  async addRequirement(claimId: string, kind: string): Promise<void> {
    await this.#ask({ do: "add_requirement", claim_id: Number(claimId), kind });
  }

  async stopService(name: string): Promise<void> {
    await this.#ask({ do: "stop", name });
  }

  async restartService(name: string): Promise<void> {
    await this.#ask({ do: "restart", name });
  }

  async forgetEvents(): Promise<void> {
    await this.#ask({ do: "forget_events" });
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    await ended;
  }

  /** Commands are answered in order, so they go one at a time. */
  #ask<T>(command: Record<string, unknown>): Promise<T> {
    const asked = this.#last.then(async () => {
      this.#process.stdin.write(`${JSON.stringify(command)}\n`);
      const said = JSON.parse(await nextLine(this.#lines)) as { answer: T; error?: string };
      if (said.error !== undefined) throw new Error(said.error);
      return said.answer;
    });
    this.#last = asked.catch(() => undefined);
    return asked;
  }
}

async function nextLine(lines: AsyncIterator<string>): Promise<string> {
  const line = await lines.next();
  if (line.done) throw new Error("the testbed has ended; its words stand above");
  return line.value;
}

/** Return a port that no process listens on at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
