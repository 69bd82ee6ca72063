// The playground: columns side by side over shared values, run together, resumed after a lost connection, kept and shared.
import { Column } from "./playground-column.js";
import { Fields } from "./playground-fields.js";
import { Keeping } from "./playground-keep.js";
import { Stream, get, insist, post, token } from "./playground-stream.js";

const MOST_COLUMNS = 6;
const start = JSON.parse(document.getElementById("playground-start").textContent);
const by = (id) => document.getElementById(id);
const kept = `playground:${start.who}`;

class Playground {
  constructor() {
    this.columns = [];
    this.urls = start.urls;
    this.choices = { prompts: [], models: [], may_make_prompts: false };
    this.project = "";
    this.entering = null; // the project that is being opened, until its columns stand
    this.cache = new Map();
    this.sentences = [];
    this.say = this.say.bind(this);
    this.fields = new Fields(by("fields"), by("variables"), () => this.changed());
    this.keeping = new Keeping(this);
    this.stream = new Stream(this.urls.events, {
      tell: (run, told) => this.columns.find((one) => one.run === run)?.answer.hear(told),
      state: (state, words) => this.link(state, words),
    });
  }

  async open() {
    this.listen();
    let opening = start.opening;
    if (!Object.keys(opening).length) {
      try { opening = JSON.parse(sessionStorage.getItem(kept) ?? "{}"); } catch { opening = {}; }
    }
    if (!start.projects.some((one) => one.id === opening.project)) opening = { project: this.usual() };
    by("project").value = opening.project;
    this.fields.values = new Map(Object.entries(opening.values ?? opening.variables ?? {}));
    await this.enter(opening.project, opening.columns ?? [opening.prompt ? { source: "prompt", prompt: opening.prompt, version: opening.version } : {}]);
    if (opening.made_by) this.notice("", `Set up by ${opening.made_by}. Nothing has been run yet.`);
  }

  async enter(project, columns) {
    this.project = project;
    try { localStorage.setItem("playground-project", project); } catch { /* not allowed */ }
    this.cache.clear();
    const mine = (this.entering = Symbol(project));
    this.busy(true);
    try {
      const choices = await get(this.urls.choices, { project });
      // Another project was chosen since: what came of this one is not for the columns of that one.
      if (this.entering !== mine) return;
      this.choices = choices;
    } catch (failed) {
      if (this.entering === mine) this.notice("error", `The project could not be opened, and nothing can be run until it is: ${failed.message} Reload the page, or choose another project.`);
      return;
    }
    if (!this.choices.models.length) this.notice("warning", "Nothing is live yet that could be asked. Add a provider, a model and a route, then publish.");
    for (const one of this.columns.splice(0)) {
      if (one.run) this.stream.drop(one.run);
      one.root.remove();
    }
    for (const state of columns.slice(0, MOST_COLUMNS)) this.place(new Column(this, state));
    this.renamed();
    for (const one of this.columns) {
      if (!one.run) continue;
      // A reload, or a tab that came back: what the server kept is told again from its beginning.
      one.answer.begin();
      this.stream.follow(one.run);
    }
    by("share").disabled = false;
    this.variables();
    this.changed();
    await Promise.all(this.columns.map((one) => one.ready));
    if (this.entering === mine) this.busy(false);
  }

  // While a project is opened nothing can be run or typed: the columns may still be those of the one before, and go.
  busy(is) {
    if (!is) this.entering = null;
    by("columns").setAttribute("aria-busy", String(is));
    by("columns").inert = is;
    by("run-all").disabled = is;
    for (const one of this.columns) one.wait(is);
  }

  // The project that this browser was in last, or else the first.
  usual() {
    let last = "";
    try { last = localStorage.getItem("playground-project") ?? ""; } catch { /* not allowed */ }
    return start.projects.some((one) => one.id === last) ? last : start.projects[0].id;
  }

  listen() {
    by("project").addEventListener("change", (event) => this.enter(event.target.value, this.columns.length ? this.columns.map((one) => ({ ...one.state(), prompt: "", version: "", run: "", source: one.source === "text" ? "text" : undefined, content: null })) : [{}]));
    by("add").addEventListener("click", () => this.add(this.columns.at(-1)?.state()));
    by("run-all").addEventListener("click", () => this.start(this.columns));
    by("cancel-all").addEventListener("click", () => this.cancel(this.columns));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]")) {
        event.preventDefault();
        this.start(this.columns);
      } else if (event.key === "Escape" && !document.querySelector("dialog[open], details.menu[open]") && this.running.length) {
        event.preventDefault();
        this.cancel(this.columns);
      }
    });
  }

  get running() { return this.columns.filter((one) => one.answer?.running); }

  // Columns ------------------------------------------------------------------------------------------------------------
  place(column, after) {
    const at = after ? this.columns.indexOf(after) + 1 : this.columns.length;
    this.columns.splice(at, 0, column);
    by("columns").insertBefore(column.root, by("columns").children[at] ?? null);
  }

  add(state, after) {
    if (this.columns.length >= MOST_COLUMNS) return;
    const column = new Column(this, { ...state, run: "" });
    this.place(column, after);
    this.renamed();
    this.say(`Column ${column.letter} added.`);
    column.root.querySelector("[data-source] [aria-pressed=true]").focus();
    column.root.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.changed();
  }

  remove(column) {
    const at = this.columns.indexOf(column);
    if (column.answer.running) this.cancel([column]);
    if (column.run) this.stream.drop(column.run);
    this.columns.splice(at, 1);
    column.root.remove();
    this.renamed();
    const next = this.columns[Math.min(at, this.columns.length - 1)];
    next.root.querySelector("[data-source] [aria-pressed=true]").focus();
    this.say(`Removed. ${this.columns.length === 1 ? "One column is left." : `${this.columns.length} columns are left.`}`);
    this.variables();
    this.changed();
  }

  renamed() {
    for (const one of this.columns) one.name();
    by("add").disabled = this.columns.length >= MOST_COLUMNS;
    by("run-all-what").textContent = this.columns.length > 1 ? `Run all ${this.columns.length}` : "Run";
    by("columns").dataset.count = this.columns.length;
    this.followed();
  }

  async version(prompt, version) {
    const project = this.project;
    const key = `${project} ${prompt} ${version}`;
    if (!this.cache.has(key)) this.cache.set(key, await get(this.urls.version, { project, prompt, version }));
    return this.cache.get(key);
  }

  async names(words) {
    const response = await fetch(this.urls.preview, {
      method: "POST", redirect: "manual", credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token() },
      body: JSON.stringify({ content: { ...words, variables: null }, variables: {} }),
    });
    return (await response.json()).inferred;
  }

  variables() {
    const wanted = new Map();
    const samples = [];
    for (const column of this.columns) {
      for (const one of column.wants()) if (!wanted.has(one.name)) wanted.set(one.name, one);
      if (column.source !== "prompt" || !column.content) continue;
      for (const one of column.content.samples) if (!samples.some((known) => known.name === one.name)) samples.push(one);
    }
    this.fields.show([...wanted.values()]);
    this.keeping.samples(samples);
    by("save-sample").hidden = !this.columns.some((one) => one.source === "prompt" && one.versions?.may_change);
  }

  changed() {
    clearTimeout(this.saving_);
    this.saving_ = setTimeout(() => {
      const state = { project: this.project, values: this.fields.typed(), columns: this.columns.map((one) => one.state()) };
      try {
        for (const name of Object.keys(sessionStorage)) if (name.startsWith("playground:") && name !== kept) sessionStorage.removeItem(name);
        sessionStorage.setItem(kept, JSON.stringify(state));
      } catch { /* full, or not allowed: a reload begins anew then */ }
    }, 150);
  }

  followed() {
    const running = this.running.length;
    by("cancel-all").hidden = !running;
    const told = this.columns.filter((one) => one.answer && !one.answer.running && one.answer.ended && one.answer.state === "done");
    if (running || told.length < 2) {
      for (const one of told) if (one.answer.best?.cost || one.answer.best?.total) one.answer.measure({});
      return;
    }
    const least = (name) => {
      const values = told.map((one) => (name === "nano" ? Number.parseFloat((one.answer.measures.nano ?? "").replace(/[^\d.]/g, "")) : one.answer.measures.total));
      if (values.some((one) => !Number.isFinite(one))) return null;
      const best = Math.min(...values);
      return values.filter((one) => one === best).length === 1 ? told[values.indexOf(best)] : null;
    };
    const [cheapest, fastest] = [least("nano"), least("total")];
    for (const one of told) {
      const best = { cost: one === cheapest, total: one === fastest };
      if (Boolean(one.answer.best?.cost) !== best.cost || Boolean(one.answer.best?.total) !== best.total) one.answer.measure(best);
    }
  }

  // Runs ---------------------------------------------------------------------------------------------------------------
  start(columns) {
    if (this.entering) return;
    this.notice();
    this.fields.blame("", "");
    for (const column of columns) if (!column.answer.running) this.one(column);
  }

  async one(column) {
    if (column.starting) return;
    column.starting = true;
    // A version that was chosen a moment ago is the one that runs, not the one before it.
    for (let seen; seen !== column.ready;) await (seen = column.ready);
    column.starting = false;
    if (!this.columns.includes(column)) return;
    let asked;
    try {
      const missing = this.fields.missing(column.wants());
      if (missing) throw Object.assign(new Error(`${missing.name} needs a value.`), { param: `variables.${missing.name}` });
      asked = { ...column.asked(), variables: this.fields.given(), id: crypto.randomUUID?.() ?? made() };
    } catch (wrong) {
      column.answer.reset();
      this.refused(column, wrong);
      return;
    }
    column.blame("");
    if (column.run) this.stream.drop(column.run);
    column.run = asked.id;
    column.answer.begin();
    this.changed();
    try {
      const told = await insist(this.urls.run, asked, {
        away: () => this.link("away", "Connection lost. Trying again; a run is never made twice."),
        back: () => this.link("on"),
        given: () => column.run !== asked.id || !column.answer.running,
      });
      if (!this.columns.includes(column)) post(this.urls.cancel, { run: told.run }).catch(() => {}); // removed meanwhile: nobody would see it, and it is paid for
      else if (column.run === told.run) this.stream.follow(told.run);
    } catch (failed) {
      if (column.run !== asked.id) return;
      column.run = "";
      this.refused(column, failed);
      this.changed();
    }
  }

  refused(column, failed) {
    const param = failed.param ?? "";
    const variable = /^variables\.(\w+)/.exec(param);
    const words = failed.message.replace(/^variables\./, "");
    if (variable && this.fields.blame(variable[1], words)) column.answer.refuse(`Nothing was asked: ${words}`);
    else {
      column.blame(param);
      column.answer.refuse(failed.message);
    }
    if (failed.code === "playground_key_revoked") this.keeping.offerKey(failed.message);
  }

  async cancel(columns) {
    for (const column of columns) {
      if (!column.answer.running || !column.run) continue;
      const run = column.run;
      post(this.urls.cancel, { run }).catch((failed) => {
        // Over already, or cancelled by somebody a moment ago: the stream tells.
        if (failed.status !== 409 && column.run === run) this.notice("error", `It could not be cancelled: ${failed.message} If this page is closed, it stops by itself.`);
      });
    }
  }

  saving(column) { this.keeping.version(column); }

  // Telling ------------------------------------------------------------------------------------------------------------
  link(state, words = "") {
    const place = by("link");
    place.hidden = state === "on";
    place.dataset.state = state;
    if (by("link-text").textContent !== words) {
      if (words) this.say(words);
      else if (by("link-text").textContent) this.say("The connection is back.");
      by("link-text").textContent = words;
    }
  }

  say(words) {
    this.sentences.push(words);
    clearTimeout(this.saying);
    // Together, so that one does not drown the other.
    this.saying = setTimeout(() => { by("said").textContent = this.sentences.splice(0).join(" "); }, 150);
  }

  notice(kind = "", words = "", ...more) {
    const place = by("notice");
    place.hidden = !words;
    place.className = `notice ${kind}`;
    place.setAttribute("role", kind === "error" ? "alert" : "status");
    place.replaceChildren(words, ...more);
  }
}

// Off HTTPS browsers have no randomUUID.
function made() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

new Playground().open();
