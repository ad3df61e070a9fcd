// Follows the server's WebSocket: one card for each source. Nothing of a message is ever read as HTML.
import { Card } from "./card.js";
import { offerVisits } from "./visit.js";

const cards = new Map();
const home = document.getElementById("sources");
const link = document.getElementById("link");
const text = document.getElementById("link-text");
let socket = null;
let retry_ms = 500;
let pictures = localStorage.getItem("pictures") !== "off";

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/events`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    retry_ms = 500;
    say(true, "connected");
    askForPictures();
  };
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") take(JSON.parse(data));
    else show(data);
  };
  socket.onclose = ({ code, reason }) => {
    if (code >= 4000) return say(false, reason || "the server closed the page");
    say(false, "the server does not answer; trying again");
    setTimeout(connect, retry_ms);
    retry_ms = Math.min(8000, retry_ms * 2);
  };
}

function say(up, words) {
  link.dataset.up = up;
  text.textContent = words;
}

function take(message) {
  if (message.history) {
    for (const earlier of message.history) card(earlier.source).take(earlier, true);
    return;
  }
  card(message.source).take(message, false);
}

function card(source) {
  if (!cards.has(source)) {
    const made = new Card(source);
    cards.set(source, made);
    const after = [...cards.keys()].sort().find((name) => name > source);
    home.insertBefore(made.element, after ? cards.get(after).element : null);
    home.dataset.count = cards.size;
    document.getElementById("empty").hidden = true;
    askForPictures();
  }
  return cards.get(source);
}

// A picture: length of the header (4 bytes), header, JPEG.
function show(data) {
  const length = new DataView(data).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const jpeg = new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" });
  card(header.source).picture(header, jpeg);
}

function askForPictures() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  const shown = pictures && !document.hidden ? [...cards.keys()].slice(0, 16) : [];
  socket.send(JSON.stringify({ pictures: shown }));
}

function repaint() {
  for (const made of cards.values()) made.paint();
}

document.addEventListener("visibilitychange", askForPictures);
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() !== "p" || event.ctrlKey || event.metaKey || event.altKey) return;
  pictures = !pictures;
  localStorage.setItem("pictures", pictures ? "on" : "off");
  if (!pictures) for (const made of cards.values()) made.hidePicture();
  askForPictures();
});
document.getElementById("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  repaint();
});
const theme = localStorage.getItem("theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
window.addEventListener("resize", repaint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
offerVisits(document.getElementById("visit"), (words) => say(link.dataset.up, words));
connect();
