// A column: what is asked (a version of a prompt, or turns of one's own), of which route or model, and its answer below.
import { Answer } from "./playground-answer.js";

const LAYERS = [["system", "System policy"], ["task", "Task"], ["context", "Retrieved context"], ["user", "User data"]];
const $ = (root, name) => root.querySelector(`[data-${name}]`);
let made = 0;

const option = (value, text, note) => {
  const found = new Option(text, value);
  if (note) found.title = note;
  return found;
};

export class Column {
  constructor(page, state) {
    this.page = page;
    this.key = (made += 1);
    this.root = document.getElementById("column-blank").content.firstElementChild.cloneNode(true);
    this.content = null; // what the chosen version says
    this.versions = null; // what there is of the chosen prompt
    this.words = null; // layers that were changed here
    this.source = "prompt";
    this.run = "";
    this.ready = Promise.resolve(); // until what was chosen last is there
    this.label();
    this.answer = new Answer(this.root, { name: () => this.letter, say: page.say, changed: () => this.follow() });
    this.listen();
    this.fill();
    this.restore(state);
  }

  get letter() { return String.fromCharCode(65 + this.page.columns.indexOf(this)); }

  // Every field has a name of its own, so that its label is told.
  label() {
    for (const field of this.root.querySelectorAll(".field")) {
      const control = field.querySelector("input, select, textarea");
      const label = field.querySelector("label");
      if (!control || !label) continue;
      control.id = `c${this.key}-${[...this.root.querySelectorAll(".field")].indexOf(field)}`;
      label.htmlFor = control.id;
    }
    const layers = $(this.root, "layers");
    for (const [name, title] of LAYERS) {
      const box = document.createElement("div");
      box.className = "field";
      const label = document.createElement("label");
      label.textContent = title;
      const area = document.createElement("textarea");
      area.rows = 2;
      area.dataset.layer = name;
      area.id = label.htmlFor = `c${this.key}-${name}`;
      box.append(label, area);
      layers.append(box);
    }
  }

  name() {
    const heading = this.root.querySelector("h2");
    heading.textContent = `Column ${this.letter}`;
    heading.id = `c${this.key}-title`;
    this.root.setAttribute("aria-labelledby", heading.id);
    $(this.root, "source").setAttribute("aria-label", `What column ${this.letter} asks`);
    this.root.querySelector(".pg-answer").setAttribute("aria-label", `Answer of column ${this.letter}`);
    for (const [name, words] of [["run", "Run"], ["cancel", "Cancel"], ["duplicate", "Duplicate"], ["remove", "Remove"], ["save", "Save as a version, from"], ["copy-answer", "Copy the answer of"]]) {
      $(this.root, name).setAttribute("aria-label", `${words} column ${this.letter}`);
    }
    for (const name of ["duplicate", "remove"]) $(this.root, name).title = $(this.root, name).getAttribute("aria-label");
    $(this.root, "remove").hidden = this.page.columns.length < 2;
  }

  listen() {
    const on = (name, kind, act) => $(this.root, name).addEventListener(kind, act);
    on("run", "click", () => this.page.start([this]));
    on("cancel", "click", () => this.page.cancel([this]));
    on("duplicate", "click", () => this.page.add(this.state(), this));
    on("remove", "click", () => this.page.remove(this));
    on("save", "click", () => this.page.saving(this));
    on("undo", "click", () => {
      this.words = this.names = null;
      this.showWords();
      this.page.variables();
      this.page.changed();
    });
    on("copy-answer", "click", async (event) => {
      const button = event.target;
      try { await navigator.clipboard.writeText(this.answer.text); button.textContent = "Copied"; } catch { button.textContent = "Not allowed"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
    $(this.root, "source").addEventListener("click", (event) => {
      if (event.target.dataset.is) this.setSource(event.target.dataset.is);
    });
    on("prompt", "change", () => this.choose($(this.root, "prompt").value, ""));
    on("version", "change", () => this.choose($(this.root, "prompt").value, $(this.root, "version").value));
    on("layers", "input", (event) => {
      const base = this.content?.layers ?? {};
      this.words = { ...(this.words ?? base), [event.target.dataset.layer]: event.target.value };
      if (LAYERS.every(([name]) => (this.words[name] ?? "") === (base[name] ?? ""))) this.words = null;
      this.mark();
      clearTimeout(this.naming);
      this.naming = setTimeout(() => this.ask(), 300);
    });
    on("add-turn", "click", () => {
      const last = [...this.root.querySelectorAll("[data-role]")].at(-1)?.value;
      this.turn(last === "user" ? "assistant" : "user", "").querySelector("textarea").focus();
    });
    on("format", "change", () => { $(this.root, "schema-part").hidden = $(this.root, "format").value !== "json_schema"; });
    this.root.addEventListener("input", () => this.page.changed());
    this.root.addEventListener("change", () => {
      this.note();
      this.page.changed();
    });
  }

  wait(is) { $(this.root, "run").disabled = is; }

  // Choices ------------------------------------------------------------------------------------------------------------
  fill() {
    const { prompts, models } = this.page.choices;
    const group = (title, kind) => {
      const found = document.createElement("optgroup");
      found.label = title;
      found.append(...models.filter((one) => one.kind === kind).map((one) => option(one.name, `${one.name}${one.simulated ? " · simulated" : ""}`, one.note)));
      return found;
    };
    const model = $(this.root, "model");
    const before = model.value;
    model.replaceChildren(option("", "The prompt's own route"), group("Routes", "route"), group("Models", "model"));
    model.value = before;
    const prompt = $(this.root, "prompt");
    prompt.replaceChildren(option("", prompts.length ? "Choose a prompt" : "There is none yet"), ...prompts.map((one) => option(one.id, `${one.slug}${one.shared ? " · shared" : ""}`)));
  }

  restore(state) {
    const given = state ?? {};
    const first = this.page.choices.models[0]?.name ?? "";
    this.words = given.source === "edited" ? given.content : null;
    $(this.root, "model").value = given.model ?? (given.source === "text" || !this.page.choices.prompts.length ? first : "");
    if (given.model && !$(this.root, "model").value) {
      $(this.root, "model").append(option(given.model, `${given.model} · not live here`));
      $(this.root, "model").value = given.model;
    }
    const parameters = given.parameters ?? {};
    $(this.root, "temperature").value = parameters.temperature ?? "";
    $(this.root, "max").value = parameters.max_output_tokens ?? "";
    $(this.root, "effort").value = parameters.reasoning_effort ?? "";
    const shape = given.response_format;
    $(this.root, "format").value = shape?.type ?? "";
    $(this.root, "schema").value = shape?.schema == null ? "" : typeof shape.schema === "string" ? shape.schema : JSON.stringify(shape.schema, null, 2);
    $(this.root, "schema-part").hidden = $(this.root, "format").value !== "json_schema";
    $(this.root, "tools").value = given.tools == null ? "" : typeof given.tools === "string" ? given.tools : JSON.stringify(given.tools, null, 2);
    $(this.root, "turns").replaceChildren();
    for (const one of given.messages ?? []) {
      if (one.role === "system" && !$(this.root, "system").value) $(this.root, "system").value = one.content;
      else this.turn(one.role, one.content);
    }
    if (!$(this.root, "turns").children.length) this.turn("user", "");
    this.run = given.run ?? "";
    const source = given.source === "text" || (!given.source && !this.page.choices.prompts.length) ? "text" : "prompt";
    this.setSource(source, true);
    const prompt = given.prompt || (given.source || source === "text" ? "" : this.page.choices.prompts[0].id);
    if (prompt) this.choose(prompt, given.version ?? "", this.words);
    this.note();
  }

  turn(role, content) {
    const turn = document.getElementById("turn-blank").content.firstElementChild.cloneNode(true);
    const select = turn.querySelector("[data-role]");
    select.value = role === "assistant" ? "assistant" : "user";
    const area = turn.querySelector("textarea");
    area.value = content;
    turn.querySelector("[data-remove-turn]").addEventListener("click", () => {
      turn.remove();
      this.turns();
      ($(this.root, "turns").querySelector("textarea") ?? $(this.root, "add-turn")).focus();
      this.page.changed();
    });
    $(this.root, "turns").append(turn);
    this.turns();
    return turn;
  }

  turns() {
    [...$(this.root, "turns").children].forEach((turn, index, all) => {
      turn.querySelector("select").setAttribute("aria-label", `Who says turn ${index + 1}`);
      turn.querySelector("textarea").setAttribute("aria-label", `Turn ${index + 1}`);
      const remove = turn.querySelector("[data-remove-turn]");
      remove.setAttribute("aria-label", `Remove turn ${index + 1}`);
      remove.hidden = all.length < 2;
    });
  }

  setSource(source, quiet = false) {
    this.source = source;
    for (const button of $(this.root, "source").children) button.setAttribute("aria-pressed", String(button.dataset.is === source));
    for (const part of this.root.querySelectorAll("[data-part]")) part.hidden = part.dataset.part !== source;
    const own = $(this.root, "model").options[0];
    own.disabled = source === "text";
    own.textContent = source === "text" ? "Choose a route or model" : this.content?.route ? `The prompt's own: ${this.content.route}` : "The prompt's own route";
    if (source === "text" && !$(this.root, "model").value) $(this.root, "model").value = this.content?.route || this.page.choices.models[0]?.name || "";
    this.contract();
    this.mark();
    if (!quiet) {
      this.page.variables();
      this.page.changed();
    }
  }

  choose(prompt, version, words = null) {
    this.ready = this.load(prompt, version, words);
    return this.ready;
  }

  async load(prompt, version, words) {
    const mine = (this.asking = Symbol("asking"));
    $(this.root, "prompt").value = prompt;
    this.words = words;
    this.names = null;
    if (!prompt) {
      this.content = this.versions = null;
      $(this.root, "version").replaceChildren();
      this.showWords();
      this.page.variables();
      this.page.changed();
      return;
    }
    try {
      const told = await this.page.version(prompt, version);
      if (this.asking !== mine) return;
      this.versions = told;
      this.content = told.content;
      $(this.root, "version").replaceChildren(...told.versions.map((one) => {
        const name = one.version === "draft" ? `Draft ${one.note}` : `Version ${one.version}${one.labels.length ? ` · ${one.labels.join(", ")}` : ""}${one.published ? "" : " · not published"}`;
        return option(one.version, name, one.note);
      }));
      $(this.root, "version").value = told.content.version;
      $(this.root, "prompt").value = prompt;
      this.setSource(this.source, true);
      if (!this.content.route && !$(this.root, "model").value) $(this.root, "model").value = this.page.choices.models[0]?.name ?? "";
    } catch (failed) {
      if (this.asking !== mine) return;
      this.content = null;
      // Versions of the prompt that was chosen before are none of this one.
      if (this.versions?.id !== prompt) {
        this.versions = null;
        $(this.root, "version").replaceChildren();
      }
      // What is under way goes on, and says itself how it ends.
      if (this.answer.running) this.page.notice("error", `Column ${this.letter}: ${failed.message}`);
      else {
        this.answer.reset();
        this.answer.refuse(failed.message);
      }
    }
    this.showWords();
    this.note();
    this.page.changed();
    await this.ask();
  }

  // Which names the words take from outside: the server reads templates, and tells also while they are half-written.
  async ask() {
    const words = this.words;
    if (!words) this.names = null;
    else {
      try {
        const names = await this.page.names(words);
        if (this.words === words) this.names = names;
      } catch { /* running says what is wrong */ }
    }
    this.page.variables();
  }

  showWords() {
    for (const [name] of LAYERS) {
      const area = this.root.querySelector(`[data-layer="${name}"]`);
      area.value = (this.words ?? this.content?.layers ?? {})[name] ?? "";
      area.disabled = !this.content;
    }
    this.mark();
  }

  mark() {
    const edited = this.source === "prompt" && this.words !== null;
    $(this.root, "edited").hidden = !edited;
    $(this.root, "undo").hidden = !edited;
    const filled = LAYERS.filter(([name]) => ((this.words ?? this.content?.layers ?? {})[name] ?? "").trim()).map(([, title]) => title.toLowerCase());
    $(this.root, "words-note").textContent = edited ? "changed here" : filled.join(", ");
  }

  contract() {
    const has = this.source === "prompt" && this.content?.output_schema != null;
    $(this.root, "format-part").hidden = has;
    $(this.root, "schema-part").hidden = has || $(this.root, "format").value !== "json_schema";
  }

  note() {
    this.contract();
    const own = this.source === "prompt" ? this.content?.parameters ?? {} : {};
    $(this.root, "temperature").placeholder = own.temperature ?? "usual";
    $(this.root, "max").placeholder = own.max_output_tokens ?? "usual";
    const parts = [];
    const temperature = $(this.root, "temperature").value || own.temperature;
    const most = $(this.root, "max").value || own.max_output_tokens;
    if (temperature != null && temperature !== "") parts.push(`temperature ${temperature}`);
    if (most) parts.push(`at most ${Number(most).toLocaleString("en")} tokens`);
    if ($(this.root, "effort").value) parts.push(`reasoning ${$(this.root, "effort").value}`);
    if (this.source === "prompt" && this.content?.output_schema) parts.push("JSON by the prompt's contract");
    else if ($(this.root, "format").value) parts.push($(this.root, "format").selectedOptions[0].textContent);
    if ($(this.root, "tools").value.trim()) parts.push("tools");
    $(this.root, "parameters-note").textContent = parts.join(", ") || "as usual";
  }

  // What it is ---------------------------------------------------------------------------------------------------------
  state() {
    const parameters = {};
    const numbers = { temperature: "temperature", max: "max_output_tokens" };
    for (const [field, name] of Object.entries(numbers)) {
      const text = $(this.root, field).value.trim();
      if (text) parameters[name] = Number(text);
    }
    if ($(this.root, "effort").value) parameters.reasoning_effort = $(this.root, "effort").value;
    const format = $(this.root, "format").value;
    const messages = [{ role: "system", content: $(this.root, "system").value }];
    for (const turn of $(this.root, "turns").children) messages.push({ role: turn.querySelector("select").value, content: turn.querySelector("textarea").value });
    return {
      source: this.source === "text" ? "text" : this.words ? "edited" : "prompt",
      prompt: $(this.root, "prompt").value,
      version: this.content?.version ?? $(this.root, "version").value,
      content: this.words,
      messages,
      model: $(this.root, "model").value,
      parameters,
      response_format: format ? { type: format, ...(format === "json_schema" ? { schema: $(this.root, "schema").value } : {}) } : null,
      tools: $(this.root, "tools").value.trim() || null,
      run: this.run,
    };
  }

  // As the server takes it: JSON that was typed becomes JSON. Throws an error with a field that is wrong.
  asked() {
    const { run, ...state } = this.state();
    const parsed = (text, name, words) => {
      try { return JSON.parse(text); } catch (problem) { throw Object.assign(new Error(`${words} is not JSON: ${problem.message}`), { param: name }); }
    };
    if (state.response_format?.type === "json_schema") state.response_format = { type: "json_schema", schema: parsed(state.response_format.schema || "{}", "response_format", "The schema") };
    if (state.source === "prompt" && this.content?.output_schema) state.response_format = null;
    state.tools = state.tools ? parsed(state.tools, "tools", "What stands under tools") : null;
    state.content = state.content ?? {};
    state.project = this.page.project;
    return state;
  }

  wants() {
    if (this.source !== "prompt" || !this.content) return [];
    if (!this.words || !this.names) return this.content.variables;
    // Names that are new here are text, as the server takes them.
    const known = new Map(this.content.variables.map((one) => [one.name, one]));
    return this.names.map((name) => known.get(name) ?? { name, type: "text" });
  }

  // A refusal of the server at the field that it is about.
  blame(param) {
    const at = { temperature: "temperature", "parameters.temperature": "temperature", "parameters.max_output_tokens": "max", tools: "tools", response_format: "schema", model: "model", prompt: "prompt", version: "version" }[param];
    for (const wrong of this.root.querySelectorAll("[aria-invalid]")) wrong.removeAttribute("aria-invalid");
    const field = at ? $(this.root, at) : this.root.querySelector(`[data-layer="${CSS.escape(param)}"]`) ?? (param.startsWith("messages") ? $(this.root, "turns").querySelector("textarea") : null);
    if (!field) return;
    field.setAttribute("aria-invalid", "true");
    const box = field.closest("details");
    if (box) box.open = true;
  }

  follow() {
    const running = this.answer?.running ?? false;
    $(this.root, "run").hidden = running;
    $(this.root, "cancel").hidden = !running;
    this.page.followed();
  }
}
