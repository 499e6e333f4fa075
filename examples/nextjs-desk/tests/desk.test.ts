import { afterAll, beforeAll, expect, test } from "vitest";

import { DiallerClient } from "@dialler/client";

import { Testbed } from "../../../clients/typescript/tests/testbed.ts";
import { Browser, RunningDesk } from "./running-desk.ts";

let bed: Testbed;
let desk: RunningDesk;
let browser: Browser;
let agent: DiallerClient;
let token: string;

beforeAll(async () => {
  desk = await RunningDesk.plan();
  bed = await Testbed.start({ origin: desk.origin });
  token = await bed.token("agent", "agent-7");
  agent = new DiallerClient({ baseUrl: bed.gateway, token: () => token });
  await desk.start({ DIALLER_URL: bed.gateway });
  browser = await Browser.open();
});
afterAll(async () => {
  await browser?.close();
  await desk?.stop();
  await bed?.stop();
});

async function held() {
  const assignment = await agent.currentAssignment();
  if (assignment === null) throw new Error("the agent has no assignment");
  return assignment;
}

function choose(outcome: string): Promise<void> {
  return browser.page.locator("label", { hasText: outcome }).first().click();
}

async function signIn(as: string): Promise<void> {
  await browser.page.goto(desk.origin);
  await browser.page.getByLabel("Token").fill(as);
  await browser.page.getByRole("button", { name: "Sign in" }).click();
}

test("only an agent's token that the gateway trusts opens the desk", async () => {
  const { page } = browser;
  await signIn("nonsense");
  await page.getByText("That is not a token").waitFor();
  await signIn(await bed.token("supervisor", "supervisor-1"));
  await page.getByText("This desk is for agents").waitFor();
  await signIn(await bed.token("agent", "agent-7", -600));
  await page.getByText("has expired").waitFor();
  await browser.picture("01-sign-in-refused");
  await signIn(token);
  await page.getByRole("heading", { name: "Who is next?" }).waitFor();
  await page.getByText("Live", { exact: true }).waitFor();
  const cookies = await browser.context.cookies();
  expect(cookies.map((each) => each.httpOnly)).toEqual([true]);
  expect(await page.evaluate("document.cookie")).toBe("");
  await browser.picture("02-queues");
});

test("a signature in MySQL is on the screen while the agent is on the call", async () => {
  const { page } = browser;
  await page.getByRole("button", { name: "Call next person" }).click();
  await page.getByText("Not signed").waitFor();
  await page.getByText("There is no signature on file").waitFor();
  const assignment = await held();
  expect(await page.evaluate("document.activeElement.id")).toBe("person-name");
  await browser.picture("03-call");

  const began = performance.now();
  await bed.sign(assignment.user_id);
  await page.getByText("They have just signed").waitFor();
  await page.getByText("✓ Signed").waitFor();
  console.info(`seen ${Math.round(performance.now() - began)} ms after the commit in MySQL`);
  await browser.picture("04-signed-live");

  await choose("Completed the form");
  await page.getByLabel(/^Notes/).fill("Signed while we spoke.");
  await page.getByRole("button", { name: "Record outcome" }).click();
  await page.getByTestId("recorded").waitFor();
  expect(await page.getByTestId("recorded").innerText()).toContain("signature has arrived");
  await browser.picture("05-recorded");
});

test("by keyboard alone: the next person, a callback at a chosen time", async () => {
  const { page } = browser;
  await page.keyboard.press("n");
  await page.getByText("Why you are calling").waitFor();
  await page.getByRole("radio", { name: /Call back/ }).focus();
  await page.keyboard.press("Space");
  await page.getByRole("button", { name: "Tomorrow at 10" }).focus();
  await page.keyboard.press("Enter");
  await page.getByLabel(/^Notes/).focus();
  await page.keyboard.type("n is typed here, and claims no person");
  await browser.picture("06-callback");
  await page.getByRole("button", { name: "Record outcome" }).focus();
  await page.keyboard.press("Enter");
  await page.getByTestId("recorded").waitFor();
  expect(await page.getByTestId("recorded").innerText()).toContain("Callback tomorrow at 10:00");
  await page.getByRole("region", { name: "Your callbacks" }).getByText("tomorrow at 10:00").waitFor();
});

test("an outcome that forbids further calls wants a reason; a double click counts once", async () => {
  const { page } = browser;
  await page.keyboard.press("n");
  await page.getByText("Why you are calling").waitFor();
  const { user_id } = await held();
  await choose("Do not contact");
  await page.getByRole("button", { name: "Record outcome" }).click();
  const notes = page.getByLabel(/^Notes/);
  expect(await notes.evaluate((e: HTMLTextAreaElement) => e.validity.valueMissing)).toBe(true);
  await page.getByLabel(/^Notes/).fill("Asked never to be called.");
  await page.getByRole("button", { name: "Record outcome" }).dblclick();
  await page.getByTestId("recorded").waitFor();
  const supervisorToken = await bed.token("supervisor", "supervisor-1");
  const supervisor = new DiallerClient({ baseUrl: bed.gateway, token: () => supervisorToken });
  expect((await supervisor.calls(user_id)).calls).toHaveLength(1);
});

test("an objection shows at once on the desk of the agent who holds the person", async () => {
  const { page } = browser;
  await page.keyboard.press("n");
  await page.getByText("Why you are calling").waitFor();
  const { user_id } = await held();
  const supervisorToken = await bed.token("supervisor", "supervisor-1");
  const supervisor = new DiallerClient({ baseUrl: bed.gateway, token: () => supervisorToken });
  await supervisor.recordObjection({ user_id, notes: "asked by letter" });
  await page.getByText("This person has asked not to be contacted").waitFor();
  await browser.picture("15-objection");
  await page.getByRole("button", { name: "Skip without calling" }).click();
  await page.getByText("Released. Another agent").waitFor();

  const stranger = page.getByRole("region", { name: "A stranger answered?" });
  await stranger.getByText("Asked not to be contacted").click();
  await stranger.getByLabel("Phone number").fill("07700 900997");
  await stranger.getByLabel("What was said").fill("does not know our client");
  await stranger.getByRole("button", { name: "Record the objection" }).click();
  await page.getByTestId("objection-recorded").waitFor();
});

test("a person who signed unnoticed is not handed out, and the desk says so", async () => {
  const { page } = browser;
  await bed.stopService("cdc_ingest");
  const [head] = (await agent.entries("unsigned_users", { pageSize: 1 })).entries;
  if (head === undefined) throw new Error("no person is ready");
  await bed.sign(head.user_id);
  await page.keyboard.press("n");
  await page.getByTestId("prevented").waitFor();
  expect((await held()).user_id).not.toBe(head.user_id);
  await browser.picture("14-prevented");
  await choose("No answer");
  await page.getByRole("button", { name: "Record outcome" }).click();
  await page.getByTestId("recorded").waitFor();
  await bed.restartService("cdc_ingest");
});

test("a person rings in and is found through the tRPC router", async () => {
  const { page } = browser;
  const { people } = await agent.search({ name: "Smith", limit: 1 });
  const name = people[0]?.last_name ?? "Jones";
  await page.getByLabel("Name, number or e-mail address").fill(name);
  await page.getByRole("button", { name: "Find" }).click();
  await page.locator("details").first().waitFor();
  await page.locator("summary").first().click();
  await browser.picture("07-search");
});

test("a call taken back elsewhere stays on the screen, and its outcome still counts", async () => {
  const { page } = browser;
  await page.keyboard.press("n");
  await page.getByText("Why you are calling").waitFor();
  const supervisorToken = await bed.token("supervisor", "supervisor-1");
  const supervisor = new DiallerClient({ baseUrl: bed.gateway, token: () => supervisorToken });
  await page.getByLabel(/^Notes/).fill("We were cut off");
  const { assignment_id } = await held();
  await supervisor.unwrap(
    supervisor.api.POST("/v1/assignments/{assignment_id}/force-release", {
      params: {
        path: { assignment_id },
        header: { "Idempotency-Key": crypto.randomUUID() },
      },
      body: { notes: "left the desk" },
    }),
  );
  await page.getByText("This call was taken back").waitFor();
  expect(await page.getByLabel(/^Notes/).inputValue()).toBe("We were cut off");
  await browser.picture("08-taken-back");
  await choose("Hung up");
  await page.getByRole("button", { name: "Record outcome" }).click();
  await page.getByTestId("recorded").waitFor();
});

test("an empty queue says why", async () => {
  const { page } = browser;
  await page.getByText("They asked to be called at this time").click();
  await page.getByRole("button", { name: "Call next person" }).click();
  await page.getByTestId("empty").waitFor();
  await browser.picture("09-empty");
});

test("the gateway restarts: the desk says so, and comes back by itself", async () => {
  const { page } = browser;
  await bed.stopService("gateway");
  await page.getByText(/Reconnecting|Connecting/).waitFor();
  await page.getByRole("button", { name: "Call next person" }).click();
  await page.getByRole("alert").filter({ hasText: "No person was handed to you" }).waitFor();
  await browser.picture("10-away");
  await bed.restartService("gateway");
  await page.getByText("Live", { exact: true }).waitFor({ timeout: 40_000 });
});

test("dark, and on a small screen", async () => {
  const { page } = browser;
  await page.getByText("Nothing can begin before they sign").click();
  await page.getByRole("button", { name: "Call next person" }).click();
  await page.getByText("Why you are calling").waitFor();
  await page.getByRole("heading", { name: "Claims" }).waitFor();
  await page.emulateMedia({ colorScheme: "dark" });
  await browser.picture("11-dark");
  await page.setViewportSize({ width: 390, height: 844 });
  const overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
  expect(await page.evaluate(overflow)).toBe(0);
  await browser.picture("12-phone");
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
});

test("a reload shows the same call; the session's end is told and loses nothing", async () => {
  const { page } = browser;
  await page.reload();
  await page.getByText("Why you are calling").waitFor();
  await page.getByLabel(/^Notes/).fill("typed before the session ended");
  await browser.context.clearCookies();
  await choose("No answer");
  await page.getByRole("button", { name: "Record outcome" }).click();
  await page.getByText("Your session has ended.").first().waitFor();
  expect(await page.getByLabel(/^Notes/).inputValue()).toBe("typed before the session ended");
  await browser.picture("13-session-over");
  await signIn(token);
  await page.getByText("Why you are calling").waitFor();
});

test("signing out gives the person back", async () => {
  const { page } = browser;
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  expect(await agent.currentAssignment()).toBeNull();
});

test("the page logged no error and called no other origin", () => {
  expect(browser.complaints).toEqual([]);
  const expected = [new URL(desk.origin).host, new URL(bed.gateway).host];
  expect([...browser.hosts].sort()).toEqual(expected.sort());
});
