#!/bin/sh
# Says what is missing for the TypeScript client and the desk, and how to get it.
set -eu

if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    printf '\n%s\n' "Node.js and npm are missing. The TypeScript client needs Node.js 20.9 or later." >&2
    exit 1
fi
node -e '
const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 9)) {
  console.error(`\nNode.js ${process.versions.node} is too old: 20.9 or later is needed.`);
  process.exit(1);
}'
