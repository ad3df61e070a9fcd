// This browser's camera and microphone as one more source, by WebRTC to the server of this page alone.
let peer = null;
let tracks = [];

export async function offerVisits(button, say) {
  const answer = await fetch("visit").catch(() => null);
  if (!answer?.ok || !(await answer.json()).room) return;
  button.hidden = false;
  if (!navigator.mediaDevices?.getUserMedia) {
    button.disabled = true;
    button.title = "Browsers give cameras to secure addresses only: open the page by https, or on the host itself.";
    return;
  }
  const settle = (words) => {
    button.textContent = peer ? "Stop this camera" : "Use this camera";
    if (words) say(words);
  };
  button.addEventListener("click", async () => {
    if (peer) {
      leave();
      return settle("this camera is no longer used");
    }
    button.disabled = true;
    try {
      settle(`this camera is ${await visit(() => { leave(); settle("the connection of this camera ended"); })}`);
    } catch (error) {
      leave();
      settle(error.name === "NotAllowedError" ? "the browser was not allowed to use the camera" : `this camera cannot be used: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  });
  addEventListener("pagehide", leave);
}

async function visit(onLost) {
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { width: 640, height: 480, frameRate: 15 },
    // What levels and cleans a voice for a call takes its loudness away.
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  tracks = stream.getTracks();
  peer = new RTCPeerConnection();
  for (const track of tracks) peer.addTrack(track, stream);
  const mine = peer;
  peer.addEventListener("connectionstatechange", () => {
    if (peer === mine && ["failed", "closed", "disconnected"].includes(peer.connectionState)) onLost();
  });
  await peer.setLocalDescription();
  await gathered(peer);
  const answer = await fetch("visit", { method: "POST", body: peer.localDescription.sdp });
  const { sdp, source, error } = await answer.json();
  if (error) throw new Error(error);
  await peer.setRemoteDescription({ type: "answer", sdp });
  return source;
}

function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    connection.addEventListener("icegatheringstatechange", () => {
      if (connection.iceGatheringState === "complete") resolve();
    });
    setTimeout(resolve, 3000); // what has been found by then will do
  });
}

function leave() {
  for (const track of tracks) track.stop();
  peer?.close();
  peer = null;
  tracks = [];
}
