// "This is wrong": asks for the right label, and sends it with the photograph.

import { labelAt } from "./judgement.js";
import { report } from "./service.js";

const dialog = document.getElementById("report");
const at = (name) => document.getElementById(`report-${name}`);
const NAME = "mergeline-by";

function remembered() {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

function remember(name) {
  try {
    localStorage.setItem(NAME, name);
  } catch {
    // forbidden: it is asked for again
  }
}

let asked = 0;

/** Asks about an item; `onSent` is told when the service has kept what was said. */
export function ask(item, threshold, onSent) {
  const mine = ++asked;
  const shownStill = () => dialog.open && mine === asked; // else the dialog is about another item by now
  const answer = item.answer;
  const shown = labelAt(answer, threshold);
  const others = Object.keys(answer.probabilities).filter((name) => name !== shown);
  at("about").textContent = `${item.name} was judged ${shown}.`;
  at("labels").replaceChildren(
    ...others.map((name) => {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "label", value: name, required: true });
      radio.checked = others.length === 1;
      label.append(radio, ` ${name}`);
      return label;
    }),
  );
  at("comment").value = "";
  at("by").value = remembered();
  at("error").hidden = true;
  at("send").disabled = false;
  at("cancel").onclick = () => dialog.close();
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const label = dialog.querySelector("input[name=label]:checked").value;
    remember(at("by").value.trim());
    at("send").disabled = true;
    at("error").hidden = true;
    const said = { id: answer.id, label, said: shown, score: answer.score, threshold, comment: at("comment").value.trim(), by: at("by").value.trim() };
    for (const key of ["model_name", "model_version", "model_digest"]) said[key] = answer[key];
    try {
      await report(item.file, item.name, said);
      item.reported = label;
      item.note = null;
      if (shownStill()) dialog.close();
      onSent(item);
    } catch (error) {
      const text = `It was not kept: ${error.message}`;
      if (!shownStill()) {
        item.note = item.part.said.textContent = text;
        return;
      }
      at("error").textContent = text;
      at("error").hidden = false;
      at("send").disabled = false;
    }
  };
  dialog.showModal();
  (dialog.querySelector("input[name=label]:checked") ?? dialog.querySelector("input[name=label]")).focus();
}
