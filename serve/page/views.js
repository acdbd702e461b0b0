// The page's two views, which the address names, and its light and dark.

import { keep } from "./kept.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

/** Shows the view that the address names; `onShow` is told each time that one is shown. */
export function begin(onShow) {
  const show = (name) => {
    for (const tab of tabs) {
      const chosen = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
    onShow(name);
  };
  // Not by setting location.hash: that scrolls to the panel and, a moment later, takes the focus from the tab.
  const go = (name) => {
    if (location.hash !== `#${name}`) history.pushState(null, "", `#${name}`);
    show(name);
  };
  const shownByHash = () => show(location.hash === "#served" ? "served" : "inspect");
  addEventListener("hashchange", shownByHash);
  for (const tab of tabs) {
    tab.addEventListener("click", () => go(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs.find((one) => one !== tab);
      other.click();
      other.focus();
    });
  }
  document.getElementById("model").addEventListener("click", () => go("served"));
  document.querySelector(".brand").addEventListener("click", (event) => {
    event.preventDefault();
    go("inspect");
  });
  shownByHash();
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  keep("localStorage", "theme", root.dataset.theme);
});
