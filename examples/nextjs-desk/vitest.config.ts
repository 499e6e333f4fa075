import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // The stages of one agent's day: a later one goes on where the one before ended.
    bail: 1,
  },
});
