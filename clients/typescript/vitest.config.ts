import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // By default a second, which is too little on a busy machine.
    expect: { poll: { timeout: 15_000 } },
    // One suite of servers at a time: the machine may be small.
    fileParallelism: false,
  },
});
