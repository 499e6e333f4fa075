// The fair peer of the bench context_json in Node.js: fastify and @grpc/grpc-js make the gateway's
// own gRPC call, and nothing else: no token, no limit, no audit, no log.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import fastify from "fastify";

const [port, target] = process.argv.slice(2);
const protos = fileURLToPath(new URL("../../protos", import.meta.url));
const loaded = protoLoader.loadSync("dialler/user_context/v1/user_context.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: String,
});
const { UserContextService } = grpc.loadPackageDefinition(loaded).dialler.user_context.v1;
const client = new UserContextService(target, grpc.credentials.createInsecure());
const app = fastify({ logger: false });

app.get("/v1/people/:userId/context", (request, reply) => {
  const asked = { user_id: request.params.userId, view: "CONTEXT_VIEW_JSON" };
  client.GetUserContext(asked, (error, answer) => {
    if (error) {
      reply.code(502).send();
      return;
    }
    reply.header("content-type", "application/json").send(answer.context_json);
  });
});

await app.listen({ port: Number(port), host: "127.0.0.1" });
