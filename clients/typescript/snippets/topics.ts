import { DiallerClient } from "@dialler/client";

declare const client: DiallerClient;

client.events({
  topics: ["queues"],
  onEvent: () => undefined,
  onShow: (it) => {
    if (it.name === "queues") console.log(it.shown.queues?.map((each) => [each.queue, each.ready]));
  },
});
