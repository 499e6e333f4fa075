import type { DiallerClient } from "@dialler/client";

declare const supervisor: DiallerClient;

/** Take over the file that a form's `<input type="file" name="list">` holds. */
export async function takeOver(form: HTMLFormElement): Promise<string> {
  const file = new FormData(form).get("list");
  if (!(file instanceof File)) return "Choose a file.";
  const done = await supervisor.importPhoneList("tps", file, { isComplete: true });
  const wrong = done.invalid === 0 ? "" : `; no number in lines ${done.invalid_lines.join(", ")}`;
  return `${done.added} numbers added, ${done.removed} taken off${wrong}`;
}
