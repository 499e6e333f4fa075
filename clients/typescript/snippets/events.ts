import { DiallerClient } from "@dialler/client";

declare const client: DiallerClient;

const stream = client.events({
  types: ["context_changed", "assignment_ended"],
  onEvent: (event) => console.log(event.type, event.user_id, event.timeline?.committed_at),
  onSnapshot: () => console.log("fetch what is shown: events may have been missed"),
  onStatus: (status, error) => console.log(status, error?.reason),
});
// Later, or elsewhere: go on from there.
const { lastEventId } = stream;
stream.close();
