// Checks of a policy: of stage and action only what the chosen kind allows is offered, with its summary and, in an empty
// row, its example. Without this script the form works too, and the server says what does not go together.
const followKinds = () => {
  const data = document.getElementById("policy-check-kinds");
  if (!data) return;
  const kinds = new Map(JSON.parse(data.textContent).map((told) => [told.kind, told]));

  const offer = (select, allowed) => {
    for (const option of select.options) {
      option.hidden = option.disabled = allowed ? !allowed.includes(option.value) : false;
    }
    const chosen = select.selectedOptions[0];
    if (chosen?.disabled) select.value = allowed[0];
  };

  for (const row of document.querySelectorAll("[data-check]")) {
    const part = (name) => row.querySelector(`[data-check-part="${name}"]`);
    const [kind, stage, action, settings] = ["kind", "stage", "action", "settings"].map(part);
    const summary = row.querySelector("[data-check-summary]");
    let example = "";
    const follow = () => {
      const told = kinds.get(kind.value);
      const note = example && settings.value === example ? (told?.example_note ?? "") : "";
      offer(stage, told && Object.keys(told.actions));
      offer(action, told?.actions[stage.value]);
      summary.textContent = [told?.summary ?? "", note].filter(Boolean).join(" ");
    };
    kind.addEventListener("change", () => {
      const told = kinds.get(kind.value);
      if (told && settings.value.trim() === example.trim()) {
        offer(stage, null);
        offer(action, null);
        stage.value = told.example.stage;
        action.value = told.example.action;
        settings.value = example = told.example.settings;
        settings.rows = Math.min(16, Math.max(3, example.split("\n").length + 1));
      }
      follow();
    });
    stage.addEventListener("change", follow);
    settings.addEventListener("change", follow);
    follow();
  }
};

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", followKinds);
else followKinds();
