// Values for the variables of all columns, each by its type and within its limits.
const number = (value) => Number(value).toLocaleString("en");

export class Fields {
  constructor(holder, panel, changed) {
    this.holder = holder;
    this.panel = panel;
    this.values = new Map(); // name -> text as typed
    this.shown = "";
    this.wanted = [];
    holder.addEventListener("input", (event) => this.typedIn(event.target, changed));
    holder.addEventListener("change", (event) => this.typedIn(event.target, changed));
  }

  typedIn(input, changed) {
    if (!input.dataset.name) return;
    this.values.set(input.dataset.name, input.value);
    input.removeAttribute("aria-invalid");
    input.closest(".field").querySelector(".pg-wrong").textContent = "";
    changed();
  }

  show(wanted) {
    this.panel.hidden = !wanted.length;
    const key = JSON.stringify(wanted);
    if (key === this.shown) return;
    this.shown = key;
    this.wanted = wanted;
    const focused = document.activeElement?.dataset?.name;
    this.holder.replaceChildren(...wanted.map((one) => this.field(one)));
    if (focused) this.input(focused)?.focus();
  }

  input(name) { return this.holder.querySelector(`[data-name="${CSS.escape(name)}"]`); }

  field(one) {
    const box = document.createElement("div");
    box.className = "field";
    const label = document.createElement("label");
    label.textContent = one.name;
    const chosen = one.type === "choice" || one.type === "boolean";
    const input = document.createElement(chosen ? "select" : ["text", "list", "object"].includes(one.type) ? "textarea" : "input");
    if (chosen) {
      const options = one.type === "boolean" ? ["true", "false"] : one.choices ?? [];
      if (one.required === false || one.default != null) input.add(new Option(one.default != null ? `as usual: ${one.default}` : "none", ""));
      for (const text of options) input.add(new Option(text, text));
    } else if (input.tagName === "INPUT") {
      input.type = "number";
      input.step = one.type === "integer" ? "1" : "any";
      if (one.minimum != null) input.min = one.minimum;
      if (one.maximum != null) input.max = one.maximum;
    } else {
      input.rows = 2;
      if (one.type !== "text") input.className = "mono";
      input.spellcheck = one.type === "text";
    }
    if (!chosen && one.default != null) input.placeholder = typeof one.default === "string" ? one.default : JSON.stringify(one.default);
    input.id = label.htmlFor = `value-${one.name}`;
    input.dataset.name = one.name;
    input.dataset.kind = one.type;
    const hint = document.createElement("span");
    hint.className = "hint";
    hint.id = `${input.id}-hint`;
    hint.textContent = this.hint(one);
    const wrong = document.createElement("span");
    wrong.className = "pg-wrong";
    wrong.id = `${input.id}-wrong`;
    input.setAttribute("aria-describedby", `${hint.id} ${wrong.id}`);
    if (this.values.has(one.name)) input.value = this.values.get(one.name);
    else if (input.value) this.values.set(one.name, input.value);
    box.append(label, input, hint, wrong);
    return box;
  }

  hint(one) {
    const parts = [one.type === "list" ? "a list, as JSON" : one.type === "object" ? "an object, as JSON" : one.type === "boolean" ? "yes or no" : one.type === "integer" ? "a whole number" : one.type];
    if (one.minimum != null || one.maximum != null) parts.push(`${one.minimum ?? "…"} to ${one.maximum ?? "…"}`);
    if (one.min_length) parts.push(`at least ${number(one.min_length)} characters`);
    if (one.max_length) parts.push(`at most ${number(one.max_length)} characters`);
    if (one.max_items) parts.push(`at most ${number(one.max_items)} items`);
    if (one.required === false || one.default != null) parts.push("may be left out");
    return [one.description, parts.join(", ")].filter(Boolean).join(" · ");
  }

  // name -> text, of everything that was ever typed here
  typed() { return Object.fromEntries(this.values); }

  // name -> value, of what is asked for now. A text that should be JSON and is not goes as it is: the server says what is wrong.
  given() {
    const found = {};
    for (const one of this.wanted) {
      const text = this.input(one.name)?.value ?? "";
      // Nothing is no value: one that is needed is then asked for, before anything is paid.
      if (text === "") continue;
      if (one.type === "text" || one.type === "choice") found[one.name] = text;
      else {
        try { found[one.name] = JSON.parse(text); } catch { found[one.name] = text; }
      }
    }
    return found;
  }

  // The first of these variables that needs a value and has none.
  missing(wanted) {
    return wanted.find((one) => one.required !== false && one.default == null && !(this.input(one.name)?.value ?? ""));
  }

  fill(values) {
    for (const [name, value] of Object.entries(values)) {
      const text = typeof value === "string" ? value : JSON.stringify(value, null, typeof value === "object" ? 2 : 0);
      this.values.set(name, text);
      const input = this.input(name);
      if (input) input.value = text;
    }
  }

  blame(name, message) {
    for (const wrong of this.holder.querySelectorAll(".pg-wrong")) wrong.textContent = "";
    for (const input of this.holder.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    const input = name ? this.input(name) : null;
    if (!input) return false;
    input.setAttribute("aria-invalid", "true");
    input.closest(".field").querySelector(".pg-wrong").textContent = message;
    input.focus();
    return true;
  }
}
