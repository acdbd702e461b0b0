// Makes small pictures of photographs, in a thread of its own; null: the photograph is small itself, or cannot be drawn.

addEventListener("message", async ({ data: { file, side } }) => postMessage(await small(file, side).catch(() => null)));

async function small(file, side) {
  const whole = await createImageBitmap(file);
  try {
    const scale = side / Math.max(whole.width, whole.height);
    if (scale > 0.7) return null;
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(whole.width * scale)), Math.max(1, Math.round(whole.height * scale)));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high"; // else a fine scratch falls between the pixels that are taken
    context.drawImage(whole, 0, 0, canvas.width, canvas.height);
    return await canvas.convertToBlob({ type: "image/webp", quality: 0.9 });
  } finally {
    whole.close(); // it holds four bytes for each pixel
  }
}
