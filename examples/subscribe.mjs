// Print what emostream publishes: npm install, then node subscribe.mjs [tcp://HOST:PORT]
import { Subscriber } from "zeromq";

const socket = new Subscriber();
socket.connect(process.argv[2] ?? "tcp://127.0.0.1:5556");
socket.subscribe("emotion.", "status."); // one source: "emotion.cam0."
const last = {}; // a late subscriber's replay reaches us too: skip what we have had

for await (const [topic, payload] of socket) {
  const event = JSON.parse(payload);
  if (event.version !== 1) throw new Error(`${topic}: wire version ${event.version}`);
  const key = `${event.session} ${topic}`;
  if (event.seq <= last[key]) continue;
  last[key] = event.seq;
  if (event.scores) console.log(event.source, event.smoothed.label, event.scores);
  else if (event.done) console.log(event.source, event.answer, "because:", event.think);
  else if (event.state) console.log(event.source, event.state, event.detail);
}
