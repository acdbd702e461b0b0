// What is picked or dropped: photographs with the paths by which they are known, in order, and what was left out.

import * as camera from "./camera.js";

const at = (id) => document.getElementById(id);
const NAMES = new Intl.Collator(undefined, { numeric: true });
const SUFFIX = /\.(png|jpe?g|jpe|jfif|bmp|tiff?)$/i;

/**
 * What came in: `photographs` as {file, path}; by name what of a folder is of another format, and what cannot be read.
 * What somebody chose one by one is taken whatever its name: the service says what is wrong with it.
 */
class Intake {
  photographs = [];
  leftOut = [];
  unreadable = [];

  add(file, path, chosen) {
    if (chosen || SUFFIX.test(file.name)) this.photographs.push({ file, path });
    else if (!file.name.startsWith(".")) this.leftOut.push(file.name); // else it is the system's own
  }

  inOrder() {
    this.photographs.sort((a, b) => NAMES.compare(a.path, b.path));
    return this;
  }

  /** What is to be said of what was left out; empty: nothing was. */
  words() {
    const named = (names) => `${names[0]}${names.length > 1 ? ` and ${names.length - 1} more` : ""}`;
    const said = [];
    if (this.unreadable.length) said.push(`${this.unreadable.length} of what was dropped could not be read: ${named(this.unreadable)}.`);
    if (this.leftOut.length) said.push(`${this.leftOut.length} ${this.leftOut.length > 1 ? "files were" : "file was"} left out: no PNG, JPEG, BMP or TIFF (${named(this.leftOut)}).`);
    return said.join(" ");
  }
}

/**
 * Hands on all that is chosen, dropped, pasted or taken.
 * @param {(arriving: Intake | Promise<Intake>) => Promise<Item[]>} take gives what it has made of it
 */
export function begin(take) {
  for (const [input, read] of [["files", chosen], ["folder", ofFolder], ["shot", chosen]]) {
    at(input).addEventListener("change", () => {
      take(read(at(input).files));
      at(input).value = "";
    });
  }
  at("pick").addEventListener("click", () => at("files").click());
  at("pick-folder").addEventListener("click", () => at("folder").click());
  at("pick-folder").hidden = !("webkitdirectory" in at("folder"));
  at("camera").addEventListener("click", () => (camera.live ? camera.open((file) => take(chosen([file]))) : at("shot").click()));
  let over = 0;
  addEventListener("dragenter", () => at("drop").classList.toggle("over", ++over > 0));
  addEventListener("dragleave", () => at("drop").classList.toggle("over", --over > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    over = 0;
    at("drop").classList.remove("over");
    take(dropped(event.dataTransfer));
  });
  addEventListener("paste", (event) => event.clipboardData?.files.length && take(chosen(event.clipboardData.files)));
}

/** Files that were chosen, pasted or taken. */
function chosen(files) {
  const intake = new Intake();
  for (const file of files) intake.add(file, file.name || "photograph.png", true);
  return intake;
}

/** The files of a folder that was chosen. */
function ofFolder(files) {
  const intake = new Intake();
  for (const file of files) intake.add(file, file.webkitRelativePath, false);
  return intake.inOrder();
}

/** The files of what was dropped, those in folders too. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(transfer.files);
  const intake = new Intake();
  await Promise.all(entries.map((entry) => walk(entry, intake, true)));
  return intake.inOrder();
}

async function walk(entry, intake, isChosen) {
  const found = [];
  try {
    if (entry.isFile) {
      intake.add(await new Promise((resolve, reject) => entry.file(resolve, reject)), entry.fullPath.slice(1), isChosen);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      found.push(...some);
    }
  } catch {
    intake.unreadable.push(entry.name); // one of them must not keep the others out
  }
  await Promise.all(found.map((inner) => walk(inner, intake, false)));
}
