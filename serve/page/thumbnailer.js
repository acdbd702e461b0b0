// Makes small pictures of photographs, in a thread of its own; null: the photograph is small itself, or cannot be drawn.

let last = Promise.resolve();
addEventListener("message", ({ data: { file, side } }) => {
  // One after the other, and answered in their order: each holds a whole photograph in memory.
  last = last.then(async () => postMessage(await small(file, side).catch(() => null)));
});

async function small(file, side) {
  const whole = await createImageBitmap(file);
  try {
    const scale = side / Math.max(whole.width, whole.height);
    if (scale > 0.7) return null;
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(whole.width * scale)), Math.max(1, Math.round(whole.height * scale)));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high"; // else a fine scratch falls between the pixels that are taken
    context.fillStyle = "white"; // a JPEG has no transparency; it is made in a tenth of the time of what has
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(whole, 0, 0, canvas.width, canvas.height);
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  } finally {
    whole.close(); // it holds four bytes for each pixel
  }
}
