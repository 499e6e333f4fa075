import { expect, test } from "vitest";

import { SseParser, type Frame } from "../src/sse.js";

const STREAM = [
  "retry: 1500\nid: e:1-0\n\n",
  'id: e:2-0\nevent: entry_moved\ndata: {"a":1}\n\n',
  ":\nid: e:3-0\n\n",
  ":\n\n",
  "data: first\ndata:second\n\n",
].join("");

const FRAMES: Frame[] = [
  { kind: "retry", milliseconds: 1500 },
  { kind: "position", id: "e:1-0" },
  { kind: "event", name: "entry_moved", data: '{"a":1}' },
  { kind: "position", id: "e:2-0" },
  { kind: "position", id: "e:3-0" },
  { kind: "event", name: "message", data: "first\nsecond" },
];

test.each(["\n", "\r\n", "\r"])("lines that end in %j, in pieces of any size", (ending) => {
  const text = STREAM.replaceAll("\n", ending);
  for (let size = 1; size <= text.length; size += 1) {
    const parser = new SseParser();
    const frames: Frame[] = [];
    for (let at = 0; at < text.length; at += size) {
      frames.push(...parser.push(text.slice(at, at + size)));
    }
    // What a lone \r at the very end closes is known only with the next piece.
    frames.push(...parser.push(":"));
    expect(frames).toEqual(FRAMES);
  }
});

test("what is cut off in the middle is never told of", () => {
  const parser = new SseParser();
  expect(parser.push("id: e:9-0\ndata: half")).toEqual([]);
});
