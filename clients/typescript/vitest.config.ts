import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    testTimeout: 20_000,
    hookTimeout: 120_000,
    // One suite of servers at a time: the machine may be small.
    fileParallelism: false,
  },
});
