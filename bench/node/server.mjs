// The Node.js peer of the bench context_json: the same JSON from the same Redis, and nothing else:
// no token, no limit, no audit, no log.
import fastify from "fastify";
import Redis from "ioredis";

const [port, redisUrl] = process.argv.slice(2);
const redis = new Redis(redisUrl, { enableAutoPipelining: true });
const app = fastify({ logger: false });

app.get("/v1/people/:userId/context", async (request, reply) => {
  const found = await redis.getBuffer(`bench:json:${request.params.userId}`);
  if (found === null) {
    return reply.code(404).send();
  }
  return reply.header("content-type", "application/json").send(found);
});

await app.listen({ port: Number(port), host: "127.0.0.1" });
