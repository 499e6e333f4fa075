import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const FOLDER = join(import.meta.dirname, "..");

test("the README's code is the code that tsc checks", () => {
  const readme = readFileSync(join(FOLDER, "README.md"), "utf8");
  const shown = [...readme.matchAll(/^```tsx?\n(.*?)^```$/gms)].map((each) => each[1]);
  const checked = readdirSync(join(FOLDER, "snippets")).map((each) =>
    readFileSync(join(FOLDER, "snippets", each), "utf8"),
  );
  expect([...shown].sort()).toEqual([...checked].sort());
});
