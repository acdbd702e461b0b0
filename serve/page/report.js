// "This is wrong": asks for the right label, and sends it with the photograph; or takes back what was said.

import { labelAt } from "./judgement.js";
import { keep, kept } from "./kept.js";
import { report } from "./service.js";

const dialog = document.getElementById("report");
const at = (name) => document.getElementById(`report-${name}`);

const remembered = () => kept("localStorage", "by") ?? "";

/**
 * Says what an item is.
 * @param {object} answer the judgement that is meant: another version may have judged the item since
 * @param {{ label: string, said: string, threshold: number }} said the right label; what was shown, at which threshold
 * @param {(seconds: number, reason: string) => void} onWait told of each wait before the next try
 */
export async function tell(item, answer, said, onWait) {
  const { id, score, model_name, model_version, model_digest } = answer;
  await report(item.file, item.name, { by: remembered(), ...said, id, score, model_name, model_version, model_digest }, onWait);
}

let asked = 0;

/** Asks about an item; `onSent` is told when the service has kept what was said. */
export function ask(item, threshold, onSent) {
  const mine = ++asked;
  const shownStill = () => dialog.open && mine === asked; // else the dialog is about another item by now
  const before = item.report;
  // Who mends what he has said speaks of what he saw then, in the same name: so it takes the place of the first.
  const { answer, said, ...seen } = before ?? { answer: item.answer, said: labelAt(item.answer, threshold), threshold, by: remembered() };
  const standing = before?.label ?? said;
  const others = answer.probabilities.map(([name]) => name).filter((name) => name !== standing);
  at("title").textContent = before ? "Mend what was reported" : "This is wrong";
  at("about").textContent = `${item.name} was judged ${said}${before ? `, and reported as ${standing}` : ""}.`;
  at("labels").replaceChildren(
    ...others.map((name) => {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "label", value: name, required: true });
      radio.checked = others.length === 1;
      label.append(radio, name === said ? ` ${name} after all: take it back` : ` ${name}`);
      return label;
    }),
  );
  at("comment").value = "";
  at("by").value = seen.by;
  at("by").readOnly = Boolean(before);
  at("error").hidden = true;
  at("wait").textContent = "";
  at("send").disabled = false;
  at("cancel").onclick = () => dialog.close();
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const label = dialog.querySelector("input[name=label]:checked").value;
    const by = at("by").value.trim();
    keep("localStorage", "by", by);
    at("send").disabled = true;
    at("error").hidden = true;
    try {
      await tell(item, answer, { label, said, threshold: seen.threshold, comment: at("comment").value.trim(), by }, (seconds, reason) => {
        if (shownStill()) at("wait").textContent = `${reason}; trying again …`;
      });
      item.report = label === said ? null : { answer, label, said, threshold: seen.threshold, by };
      item.note = item.report ? null : "taken back: the judgement was right";
      if (shownStill()) dialog.close();
      onSent(item);
    } catch (error) {
      const text = `It was not kept: ${error.message}`;
      if (!shownStill()) {
        item.note = text;
        item.changed();
        return;
      }
      at("error").textContent = text;
      at("error").hidden = false;
      at("wait").textContent = "";
      at("send").disabled = false;
    }
  };
  dialog.showModal();
  (dialog.querySelector("input[name=label]:checked") ?? dialog.querySelector("input[name=label]")).focus();
}
