import { spawn, type ChildProcess } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium, type BrowserContext, type Page } from "playwright-core";

import { freePort } from "../../../clients/typescript/tests/testbed.ts";

const DESK = join(dirname(fileURLToPath(import.meta.url)), "..");
const SCREENSHOTS = join(DESK, "screenshots");
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** The built desk, served by Next.js. */
export class RunningDesk {
  readonly origin: string;
  readonly #port: number;
  #process: ChildProcess | undefined;

  private constructor(port: number) {
    this.#port = port;
    this.origin = `http://127.0.0.1:${port}`;
  }

  /** Choose where it will be, so that the gateway can be told before it starts. */
  static async plan(): Promise<RunningDesk> {
    return new RunningDesk(await freePort());
  }

  async start(environment: Record<string, string>): Promise<void> {
    const args = ["start", "--hostname", "127.0.0.1", "--port", String(this.#port)];
    this.#process = spawn(join(DESK, "..", "..", "node_modules", ".bin", "next"), args, {
      cwd: DESK,
      env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production", ...environment },
      stdio: ["ignore", "ignore", "inherit"],
    });
    for (let tries = 0; tries < 150; tries += 1) {
      const answer = await fetch(`${this.origin}/login`).catch(() => null);
      if (answer?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    throw new Error("the desk did not start; was it built?");
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill();
    await ended;
  }
}

/** A real Chromium with a profile of its own. */
export class Browser {
  readonly context: BrowserContext;
  readonly page: Page;
  /** What the page complained of: uncaught errors, and errors on its console. */
  readonly complaints: string[] = [];
  /** Hosts that were asked for anything. */
  readonly hosts = new Set<string>();
  readonly #profile: string;

  private constructor(context: BrowserContext, page: Page, profile: string) {
    this.context = context;
    this.page = page;
    this.#profile = profile;
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      // Chromium itself reports every answer that is an error; those are the tests' own.
      const isAnswer = message.text().startsWith("Failed to load resource");
      if (message.type() === "error" && !isAnswer) this.complaints.push(message.text());
    });
    page.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (protocol.startsWith("http")) this.hosts.add(host);
    });
  }

  static async open(): Promise<Browser> {
    const profile = await mkdtemp(join(tmpdir(), "dialler-desk-"));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      viewport: { width: 1280, height: 900 },
      locale: "en-GB",
      timezoneId: "Europe/London",
      args: [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    });
    const page = context.pages()[0] ?? (await context.newPage());
    page.setDefaultTimeout(15_000);
    await mkdir(SCREENSHOTS, { recursive: true });
    return new Browser(context, page, profile);
  }

  /** Keep a picture of the whole page, for people to look at. */
  async picture(name: string): Promise<void> {
    await this.page.evaluate("scrollTo(0, 0)");
    await this.page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
  }

  async close(): Promise<void> {
    await this.context.close();
    await rm(this.#profile, { recursive: true, force: true });
  }
}
