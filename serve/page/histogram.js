// How scores are spread, as bars above the threshold's slider.

import { BARS } from "./tally.js";

const drawn = new Array(BARS).fill(""); // of each bar, how it is drawn: what is set anew is laid out anew
const svg = document.getElementById("histogram");
for (let place = 0; place < BARS; place++) {
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  bar.setAttribute("x", place + 0.1);
  bar.setAttribute("width", 0.8);
  svg.append(bar);
}

/** @param {number[]} counts how many scores are in each bar */
export function draw(counts, threshold) {
  const highest = Math.max(1, ...counts);
  counts.forEach((count, place) => {
    // The root, because most scores are near 0 or 1 and the few between are what matters.
    const height = count ? Math.max(1.5, 20 * Math.sqrt(count / highest)) : 0;
    const tone = (place + 0.5) / BARS < threshold ? "good" : "bad";
    const looks = `${height.toFixed(1)} ${tone}`;
    if (looks === drawn[place]) return;
    drawn[place] = looks;
    const bar = svg.children[place];
    bar.setAttribute("y", 20 - height);
    bar.setAttribute("height", height);
    bar.setAttribute("class", tone);
  });
}
