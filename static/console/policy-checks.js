// Checks of a policy: of stage and action only what the chosen kind allows is offered, with its summary, its settings as
// fields and, in an empty row, its example. Without this script the form works too: settings are text, and the server says
// what does not go together.
import { Settings } from "./policy-settings.js";

const offer = (select, allowed) => {
  for (const option of select.options) {
    option.hidden = option.disabled = allowed ? !allowed.includes(option.value) : false;
  }
  const chosen = select.selectedOptions[0];
  if (chosen?.disabled) select.value = allowed[0];
};

const data = document.getElementById("policy-check-kinds");
const kinds = new Map(data ? JSON.parse(data.textContent).map((told) => [told.kind, told]) : []);

for (const row of document.querySelectorAll("[data-check]")) {
  const part = (name) => row.querySelector(`[data-check-part="${name}"]`);
  const [kind, stage, action, text] = ["kind", "stage", "action", "settings"].map(part);
  if (!kind || kind.disabled) continue;
  const summary = row.querySelector("[data-check-summary]");
  const settings = new Settings(text, JSON.parse(row.dataset.checkSettings || "null"));
  let example = "";
  const follow = () => {
    const told = kinds.get(kind.value);
    const note = example && text.value === example ? (told?.example_note ?? "") : "";
    offer(stage, told && Object.keys(told.actions));
    offer(action, told?.actions[stage.value]);
    for (const one of row.querySelectorAll("[data-check-with-kind]")) one.hidden = !told;
    summary.textContent = [told?.summary ?? "", note].filter(Boolean).join(" ");
    settings.follow(action.value);
  };
  kind.addEventListener("change", () => {
    const told = kinds.get(kind.value);
    let given;
    if (told && text.value.trim() === example.trim()) {
      offer(stage, null);
      offer(action, null);
      stage.value = told.example.stage;
      action.value = told.example.action;
      text.value = example = told.example.settings;
      text.rows = Math.min(16, Math.max(3, example.split("\n").length + 1));
      given = told.example_settings;
    }
    follow();
    settings.show(told?.schema, given, action.value);
  });
  for (const one of [stage, action]) {
    one.addEventListener("change", () => {
      follow();
      settings.write();
    });
  }
  text.addEventListener("change", follow);
  row.addEventListener("input", follow);
  follow();
  settings.show(kinds.get(kind.value)?.schema, undefined, action.value);
}
