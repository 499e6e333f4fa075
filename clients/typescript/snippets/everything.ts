import { newWriteKey, type DiallerClient } from "@dialler/client";

declare const client: DiallerClient;

// Every endpoint of the description, typed; `unwrap` turns a problem into an exception.
const { runs } = await client
  .unwrap(client.api.GET("/v1/reconciliations", { params: { query: { page_size: 5 } } }))
  .then(({ reconciliations }) => ({ runs: reconciliations }));

await client.unwrap(
  client.api.POST("/v1/callbacks/{callback_id}/cancel", {
    params: {
      path: { callback_id: "7b6c1a52-0d0c-4c55-9d0e-0d2f8a1f2a11" },
      header: { "Idempotency-Key": newWriteKey() },
    },
  }),
);
