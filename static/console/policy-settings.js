// Settings of a check as fields, drawn from the JSON Schema of its kind, over the text that is sent. The text stays the
// truth: fields write into it (as JSON, which is YAML too), and whoever prefers can write it.
const ONLY_WITH = { attempts: "retry", otherwise: "retry" };
const BULKY = new Set(["lines", "rules", "json", "many"]);

let made = 0;
const el = (tag, attributes = {}, ...children) => {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) one.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) one.setAttribute(name, value);
  }
  one.append(...children);
  return one;
};
const WORDS = { api: "API", aws: "AWS", github: "GitHub", iban: "IBAN", id: "ID", ip: "IP", jwt: "JWT", openai: "OpenAI", ssn: "SSN" };
const worded = (name) => {
  const said = name.replace(/_s$/, " (seconds)").split("_").map((word) => WORDS[word] ?? word).join(" ");
  return said[0].toUpperCase() + said.slice(1);
};

const shapeOf = (part, parts) => {
  if (part.anyOf) return shapeOf({ ...part.anyOf.find((one) => one.type !== "null"), optional: true }, parts);
  if (part.$ref) return shapeOf(parts[part.$ref.split("/").pop()], parts);
  if (part.enum) return { ...part, shape: "one" };
  if (part.type === "array") {
    const items = shapeOf(part.items, parts);
    return { ...part, items, shape: items.shape === "one" ? "many" : items.shape === "object" ? "rules" : "lines" };
  }
  if (part.type === "object") return part.properties ? { ...part, parts, shape: "object" } : { ...part, shape: "json" };
  return { ...part, shape: { integer: "number", number: "number", boolean: "flag" }[part.type] ?? "text" };
};

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// Each maker gives { control, read() -> value or undefined, focus }; read throws a sentence for what cannot be read.
const makers = {
  number(shape, value) {
    const step = shape.type === "integer" ? "1" : "any";
    const input = el("input", { type: "number", step, min: shape.minimum, max: shape.maximum, value, class: "policy-number" });
    const none = shape.default === null || shape.default === undefined ? "no limit" : `${shape.default}`;
    input.placeholder = none;
    return { control: input, read: () => (input.value === "" ? undefined : Number(input.value)) };
  },
  flag(shape, value) {
    const input = el("input", { type: "checkbox", checked: value ?? shape.default ?? false });
    return { control: input, read: () => input.checked };
  },
  text(shape, value) {
    const input = el("input", { type: "text", maxlength: shape.maxLength, value: value ?? "" });
    return { control: input, read: () => input.value.trim() || undefined };
  },
  one(shape, value) {
    const select = el("select", {}, ...shape.enum.map((name) => el("option", { value: name }, worded(String(name)))));
    select.value = value ?? shape.default ?? shape.enum[0];
    return { control: select, read: () => select.value };
  },
  many(shape, value) {
    const chosen = new Set(value ?? shape.default ?? []);
    const boxes = shape.items.enum.map((name) => el("input", { type: "checkbox", value: name, checked: chosen.has(name) }));
    const control = el("div", { class: "policy-many" }, ...boxes.map((box) => el("label", {}, box, worded(box.value))));
    return { control, group: true, read: () => boxes.filter((box) => box.checked).map((box) => box.value) };
  },
  lines(shape, value) {
    const text = el("textarea", { rows: Math.min(8, Math.max(2, (value ?? []).length + 1)), spellcheck: "false" });
    text.value = (value ?? []).join("\n");
    return { control: text, more: "One a line.", read: () => text.value.split("\n").map((line) => line.trim()).filter(Boolean) };
  },
  json(shape, value) {
    const text = el("textarea", { rows: 6, spellcheck: "false", class: "policy-code" });
    text.value = value ? JSON.stringify(value, null, 2) : "";
    return {
      control: text,
      more: "Written as JSON.",
      read: () => {
        if (!text.value.trim()) return undefined;
        try {
          return JSON.parse(text.value);
        } catch (error) {
          throw new Error(`this is not JSON: ${error.message}`);
        }
      },
    };
  },
  rules(shape, value) {
    const list = el("div", { class: "policy-rules" });
    const rules = new Map();
    const add = (one) => {
      const legend = el("legend", {}, "Rule");
      const box = el("fieldset", { class: "policy-rule" }, legend);
      const fields = fieldsOf(shape.items, one ?? {}, box);
      const remove = el("button", { type: "button", class: "policy-button", "aria-label": "Remove this rule" }, "Remove");
      remove.addEventListener("click", () => {
        const next = box.nextElementSibling ?? box.previousElementSibling ?? more;
        rules.delete(box);
        box.remove();
        (next.querySelector?.("input, textarea") ?? more).focus();
        list.dispatchEvent(new Event("change", { bubbles: true }));
      });
      box.append(remove);
      rules.set(box, fields);
      list.append(box);
      return box;
    };
    const more = el("button", { type: "button", class: "policy-button" }, "Add a rule");
    more.addEventListener("click", () => add().querySelector("input").focus());
    for (const one of value?.length ? value : [{}]) add(one);
    const control = el("div", {}, list, more);
    return { control, group: true, read: () => [...rules.values()].map((fields) => fields.read()) };
  },
};

function fieldsOf(schema, values, into) {
  const parts = schema.parts ?? schema.$defs ?? {};
  const fields = [];
  const needed = new Set(schema.required ?? []);
  const ordered = Object.entries(schema.properties ?? {}).sort(([one], [other]) => needed.has(other) - needed.has(one));
  for (const [name, part] of ordered) {
    const shape = shapeOf(part, parts);
    const made_ = makers[shape.shape](shape, values[name]);
    const id = `policy-setting-${(made += 1)}`;
    const said = [part.description, made_.more].filter(Boolean).join(" ");
    const hint = el("p", { class: "policy-hint", id: `${id}-hint` }, said);
    const title = [worded(name), ...(needed.has(name) ? [el("span", { class: "policy-needed" }, " needed")] : [])];
    let box;
    if (made_.group) {
      box = el("fieldset", { class: "policy-setting" }, el("legend", {}, ...title), ...(said ? [hint] : []), made_.control);
    } else {
      made_.control.id = id;
      if (said) made_.control.setAttribute("aria-describedby", hint.id);
      const label = el("label", { for: id }, ...title);
      const flag = shape.shape === "flag";
      box = el("div", { class: flag ? "policy-setting policy-flag" : "policy-setting" }, ...(flag ? [made_.control, label] : [label, made_.control]), ...(said ? [hint] : []));
    }
    if (BULKY.has(shape.shape)) box.classList.add("policy-wide");
    into.append(box);
    fields.push({ name, shape, box, needed: needed.has(name), read: made_.read });
  }
  return {
    follow(action) {
      for (const { name, box } of fields) box.hidden = Boolean(ONLY_WITH[name]) && ONLY_WITH[name] !== action;
    },
    read() {
      const found = {};
      for (const { name, shape, box, needed: must, read } of fields) {
        if (box.hidden) continue;
        let value;
        try {
          value = read();
        } catch (error) {
          throw new Error(`${worded(name)}: ${error.message}`);
        }
        const unset = value === undefined || same(value, shape.default) || (Array.isArray(value) && !value.length && !shape.minItems);
        if (!unset || (must && value !== undefined)) found[name] = value;
      }
      return found;
    },
  };
}

/** The settings of one check: `show(schema, settings, action)` draws the fields, `follow(action)` hides what it has no use for. */
export class Settings {
  constructor(text, known) {
    this.text = text;
    this.known = { text: text.value, settings: known }; // what the text says, as long as nobody writes in it
    this.fields = null;
    this.schema = null;
    this.box = el("div", { class: "policy-settings", role: "group", "aria-label": text.getAttribute("aria-label") });
    this.said = el("p", { class: "policy-said", role: "status" });
    this.turn = el("button", { type: "button", class: "policy-button" });
    this.turn.addEventListener("click", () => this.turned());
    this.box.addEventListener("input", () => this.write());
    this.box.addEventListener("change", () => this.write());
    text.before(this.box);
    text.after(this.said, this.turn);
    this.as_text = false;
  }

  show(schema, settings, action) {
    this.schema = schema;
    this.action = action;
    if (settings !== undefined) this.known = { text: this.text.value, settings };
    this.draw();
  }

  follow(action) {
    this.action = action;
    this.fields?.follow(action);
  }

  settings() {
    if (this.text.value.trim() === "") return {};
    if (this.text.value === this.known.text && this.known.settings) return this.known.settings;
    try {
      const found = JSON.parse(this.text.value);
      return found && typeof found === "object" && !Array.isArray(found) ? found : null;
    } catch {
      return null;
    }
  }

  draw() {
    this.box.replaceChildren();
    this.fields = null;
    this.said.textContent = "";
    const names = Object.keys(this.schema?.properties ?? {});
    const settings = this.schema ? this.settings() : null;
    const possible = Boolean(this.schema) && names.length > 0 && settings !== null && Object.keys(settings).every((name) => names.includes(name));
    const shown = possible && !this.as_text;
    if (shown) {
      this.fields = fieldsOf(this.schema, settings, this.box);
      this.fields.follow(this.action);
    }
    this.box.hidden = !shown;
    this.text.hidden = shown || !this.schema;
    this.turn.hidden = !this.schema || !names.length;
    this.turn.textContent = shown ? "Write as text" : "Fill in fields";
    if (this.schema && settings === null) this.said.textContent = "Written as YAML here: save, and its fields are here again.";
    return shown;
  }

  turned() {
    const wanted = this.fields !== null;
    this.as_text = wanted;
    const shown = this.draw();
    if (!wanted && !shown) {
      this.as_text = true;
      this.draw();
    }
    (shown ? this.box.querySelector("input, select, textarea") : this.text).focus();
  }

  write() {
    if (!this.fields) return;
    try {
      const settings = this.fields.read();
      this.text.value = Object.keys(settings).length ? JSON.stringify(settings, null, 2) : "";
      this.text.rows = Math.min(16, Math.max(3, this.text.value.split("\n").length + 1));
      this.known = { text: this.text.value, settings };
      this.said.textContent = "";
    } catch (error) {
      this.said.textContent = `${error.message}. What was here before is kept until it is right.`;
    }
  }
}
