// Photographs from the camera: live where the browser allows it, else by the phone's own camera application.

const dialog = document.getElementById("lens");
const video = dialog.querySelector("video");
const error = dialog.querySelector(".error");
const take = document.getElementById("lens-take");
const choice = document.getElementById("lens-choice");
const list = document.getElementById("lens-shots");
const SHOWN = 6; // of the last photographs, what they were judged

/** Whether there is a live picture to be had; only secure contexts (https, localhost) have one. */
export const live = Boolean(navigator.mediaDevices?.getUserMedia);

let stream = null;
let opened = 0;
let taken = 0;
const shots = new Map(); // item → where the list says what it was judged

/** @param {(file: File) => Promise<Item[]>} onPhotograph gives what was made of it; none: it was left out */
export function open(onPhotograph) {
  taken = 0;
  shots.clear();
  list.replaceChildren();
  dialog.showModal();
  take.onclick = async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const time = new Date().toISOString().replace(/[-:]/g, "").replace("T", "-").slice(0, 15);
    const line = document.createElement("li");
    line.dataset.number = ++taken;
    list.prepend(line);
    if (list.children.length > SHOWN) list.lastChild.remove();
    for (const item of await onPhotograph(new File([blob], `camera-${time}-${taken}.png`, { type: "image/png" }))) {
      shots.set(item, line);
      follow(item);
    }
  };
  return start();
}

/** Says what has become of a photograph that was taken here. */
export function follow(item) {
  const line = shots.get(item);
  if (!line) return;
  line.dataset.verdict = item.card.dataset.verdict;
  line.textContent = [`${line.dataset.number}:`, item.part.label.textContent, item.part.score.textContent, item.part.said.textContent].filter(Boolean).join(" ");
}

async function start(deviceId) {
  const mine = ++opened;
  const shownStill = () => dialog.open && mine === opened; // it may be closed, and opened again, while the user is asked
  stop();
  error.hidden = true;
  take.disabled = true;
  try {
    const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
    const found = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 }, height: { ideal: 1080 }, ...which } });
    if (!shownStill()) {
      found.getTracks().forEach((track) => track.stop());
      return;
    }
    video.srcObject = stream = found;
    await video.play();
    await offerOthers();
    if (!shownStill()) return;
    take.disabled = false;
    take.focus();
  } catch (reason) {
    if (!shownStill()) return;
    const words = { NotAllowedError: "the browser was not allowed to use it", NotFoundError: "there is none", NotReadableError: "another program uses it" };
    error.textContent = `The camera cannot be used: ${words[reason.name] ?? reason.message}.`;
    error.hidden = false;
  }
}

/** Their names are known only once one of them may be used. */
async function offerOthers() {
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  choice.hidden = cameras.length < 2;
  choice.replaceChildren(...cameras.map((camera, at) => new Option(camera.label || `Camera ${at + 1}`, camera.deviceId)));
  choice.value = stream?.getVideoTracks()[0]?.getSettings().deviceId ?? "";
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
}

choice.addEventListener("change", () => start(choice.value));
dialog.addEventListener("close", stop);
document.getElementById("lens-close").addEventListener("click", () => dialog.close());
