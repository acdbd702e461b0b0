// Photographs from the camera: live where the browser allows it, else by the phone's own camera application.

const dialog = document.getElementById("lens");
const video = dialog.querySelector("video");
const error = dialog.querySelector(".error");
const take = document.getElementById("lens-take");
const count = document.getElementById("lens-count");

/** Whether there is a live picture to be had; only secure contexts (https, localhost) have one. */
export const live = Boolean(navigator.mediaDevices?.getUserMedia);

let stream = null;
let opened = 0;

export async function open(onPhotograph) {
  const mine = ++opened;
  const shownStill = () => dialog.open && mine === opened; // it may be closed, and opened again, while the user is asked
  let taken = 0;
  count.textContent = "";
  error.hidden = true;
  take.disabled = true;
  dialog.showModal();
  take.onclick = async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const time = new Date().toISOString().replace(/[-:]/g, "").replace("T", "-").slice(0, 15);
    taken++;
    count.textContent = `${taken} taken`;
    onPhotograph(new File([blob], `camera-${time}-${taken}.png`, { type: "image/png" }));
  };
  try {
    const wish = { width: { ideal: 1920 }, height: { ideal: 1080 }, facingMode: "environment" };
    const found = await navigator.mediaDevices.getUserMedia({ video: wish });
    if (!shownStill()) {
      found.getTracks().forEach((track) => track.stop());
      return;
    }
    video.srcObject = stream = found;
    await video.play();
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

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
}

dialog.addEventListener("close", stop);
document.getElementById("lens-close").addEventListener("click", () => dialog.close());
