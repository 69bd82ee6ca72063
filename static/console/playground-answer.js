// The lower half of a column: what came of a run. Fed with events; everything is put in as text, never as HTML.
const $ = (root, name) => root.querySelector(`[data-${name}]`);
const make = (tag, text, className) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};
const number = (value) => Number(value).toLocaleString("en");
export const took = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`);

const CHIPS = { waiting: ["running", "Asking"], running: ["running", "Answering"], done: ["ok", "Answered"], failed: ["error", "Failed"], cancelled: ["refused", "Cancelled"], lost: ["unknown", "Lost"] };

export class Answer {
  constructor(root, { name, say, changed }) {
    this.root = root;
    this.name = name;
    this.say = say;
    this.changed = changed;
    this.reset();
  }

  reset() {
    Object.assign(this, { state: "", text: "", tools: [], thought: "", head: {}, first: null, ended: null, error: null, figures: undefined, started: 0, spoken: false });
    for (const name of ["text", "calls", "figures", "told"]) $(this.root, name).replaceChildren();
    $(this.root, "thought").hidden = true;
    $(this.root, "problem").hidden = true;
    $(this.root, "figures").hidden = true;
    $(this.root, "copy-answer").hidden = true;
    $(this.root, "nothing").hidden = false;
    $(this.root, "when").textContent = "";
    this.root.querySelector(".pg-wait")?.remove();
    this.show();
  }

  get running() { return this.state === "waiting" || this.state === "running"; }

  begin() {
    this.reset();
    this.state = "waiting";
    this.started = performance.now();
    $(this.root, "nothing").hidden = true;
    const bones = make("div", undefined, "pg-wait");
    bones.setAttribute("aria-hidden", "true");
    bones.append(make("i"), make("i"), make("i"));
    $(this.root, "body").append(bones);
    this.show();
    this.tick();
  }

  tick() {
    if (!this.running) return;
    $(this.root, "when").textContent = this.first == null ? took(performance.now() - this.started) : `first words after ${took(this.first)}`;
    setTimeout(() => this.tick(), 120);
  }

  hear(told) {
    for (const event of told.events ?? []) this.one(event);
    if ("figures" in told) {
      this.figures = told.figures;
      this.measure();
    }
    if (told.end && this.running) this.finish(this.error ? "failed" : "lost");
    this.show();
  }

  one(event) {
    if (event.t === "head") this.head = event;
    else if (event.t === "text" || event.t === "refusal") {
      this.start();
      const place = $(this.root, "text");
      const body = $(this.root, "body");
      const below = body.scrollHeight - body.scrollTop - body.clientHeight < 40;
      this.text += event.v;
      place.append(event.v);
      if (below) body.scrollTop = body.scrollHeight;
    } else if (event.t === "thought") {
      this.start();
      this.thought += event.v;
      $(this.root, "thought").hidden = false;
      $(this.root, "thought").querySelector("pre").textContent = this.thought;
    } else if (event.t === "tool") this.tool(event);
    else if (event.t === "first") this.first = event.ms;
    else if (event.t === "end") this.ended = event;
    else if (event.t === "error") this.fail(event);
    else if (event.t === "cancelled" || event.t === "lost") {
      this.ended ??= { ms: event.ms };
      this.problem("warning", event.message);
    } else if (event.t === "gone") {
      this.problem("warning", "What came of this run is no longer kept. Run again.");
      this.finish("lost");
    } else if (event.t === "state") this.finish(event.state);
  }

  start() {
    this.root.querySelector(".pg-wait")?.remove();
    if (this.state === "waiting") this.state = "running";
    if (!this.spoken) {
      this.spoken = true;
      this.say(`Column ${this.name()}: the answer has begun.`);
    }
  }

  tool(event) {
    this.start();
    const known = (this.tools[event.i] ??= { name: "", args: "" });
    known.name += event.name ?? "";
    known.args += event.args ?? "";
    $(this.root, "calls").replaceChildren(...this.tools.filter(Boolean).map((one) => {
      const item = make("li");
      let args = one.args;
      try { args = JSON.stringify(JSON.parse(args), null, 2); } catch { /* not whole yet */ }
      item.append(make("span", "Would call ", "quiet"), make("b", one.name), make("span", ", and was not run", "quiet"), make("pre", args));
      return item;
    }));
  }

  fail(event) {
    this.error = event;
    this.ended ??= { ms: event.ms };
    this.problem("error", event.message, event.next && !event.message.includes(event.next) ? event.next : "", event.link, event.label);
  }

  problem(kind, message, next = "", link = "", label = "") {
    this.root.querySelector(".pg-wait")?.remove();
    $(this.root, "nothing").hidden = true;
    const place = $(this.root, "problem");
    place.className = `notice ${kind}`;
    place.hidden = false;
    const lines = [make("p", message)];
    if (next || link) {
      const line = make("p", next ? `${next} ` : "");
      if (link) {
        const anchor = make("a", label || "Look there");
        anchor.href = link;
        line.append(anchor);
      }
      lines.push(line);
    }
    place.replaceChildren(...lines);
  }

  refuse(message) {
    this.state = "failed";
    this.problem("error", message);
    this.say(`Column ${this.name()}: ${message}`);
    this.show();
  }

  finish(state) {
    if (!this.running) return;
    this.root.querySelector(".pg-wait")?.remove();
    this.state = state;
    const nothing = state === "done" && !this.text && !this.tools.length;
    if (nothing) this.problem("warning", this.ended?.finish === "length" ? "There was no room for an answer: all of the output limit went into reasoning. Allow more output tokens." : "The model answered with nothing.");
    this.pretty();
    this.measure();
    const tokens = this.ended?.usage?.output;
    const words = { done: "finished", failed: "failed", cancelled: "cancelled", lost: "lost" }[state] ?? state;
    this.say(`Column ${this.name()}: ${state === "failed" ? this.error?.message ?? "the run failed" : `the answer is ${words}${tokens ? `, ${number(tokens)} tokens` : ""}`}.`);
    $(this.root, "copy-answer").hidden = !this.text;
    this.show();
  }

  pretty() {
    const place = $(this.root, "text");
    if (!/^\s*[[{]/.test(this.text)) return;
    try {
      place.textContent = JSON.stringify(JSON.parse(this.text), null, 2);
      place.classList.add("json");
    } catch { /* no JSON after all */ }
  }

  show() {
    const chip = $(this.root, "chip");
    const [kind, word] = CHIPS[this.state] ?? ["", ""];
    chip.hidden = !word;
    chip.className = `chip ${kind}`;
    if (chip.textContent !== word) chip.textContent = word;
    this.root.toggleAttribute("data-running", this.running);
    if (!this.running && this.ended?.ms != null && this.state) $(this.root, "when").textContent = [this.head.model, this.ended.said].filter(Boolean).join(", ");
    $(this.root, "text").classList.toggle("json", $(this.root, "text").classList.contains("json") && !this.running);
    this.changed();
  }

  // What it took: at once what the stream told, and the ledger's own figures once the call is booked.
  get measures() {
    const usage = this.ended?.usage ?? {};
    const booked = this.figures ?? {};
    const total = booked.total_us != null ? booked.total_us / 1000 : this.ended?.ms;
    const first = booked.ttft_us != null ? booked.ttft_us / 1000 : this.first;
    const output = booked.output_tokens ?? usage.output;
    const speed = output > 1 && first != null && total > first ? output / ((total - first) / 1000) : null;
    return { input: booked.input_tokens ?? usage.input, output, first, total, speed, cost: booked.cost, nano: booked.cost_exact };
  }

  measure(best = this.best ?? {}) {
    if (this.running || !this.ended) return;
    this.best = best;
    const m = this.measures;
    const told = [];
    const add = (name, value, note) => {
      const box = make("div");
      const dd = make("dd", value);
      if (note) dd.append(make("small", note));
      box.append(make("dt", name), dd);
      told.push(box);
      return dd;
    };
    if (m.cost) add("Cost", m.cost, best.cost && "cheapest").title = m.nano ?? "";
    else if (this.figures === undefined && this.head.call) add("Cost", "being booked").className = "later";
    if (m.input != null) add("Input", number(m.input));
    if (m.output != null) add("Output", number(m.output));
    if (m.first != null) add("First words", took(m.first));
    if (m.total != null) add("In all", took(m.total), best.total && "fastest");
    if (m.speed) add("Tokens/s", m.speed.toFixed(m.speed < 100 ? 1 : 0));
    const place = $(this.root, "figures");
    place.replaceChildren(...told);
    place.hidden = !told.length;
    this.tellMore();
  }

  tellMore() {
    const found = this.figures ?? {};
    const place = $(this.root, "told");
    const parts = [];
    const details = (summary, inside, open = false) => {
      const box = make("details");
      box.open = open;
      box.append(make("summary", summary), inside);
      parts.push(box);
    };
    if (found.simulated) parts.push(make("p", "A simulated provider answered, not a real model."));
    if (this.head.cache && !["", "off", "miss"].includes(this.head.cache)) parts.push(make("p", found.cache ? `Response cache: ${found.cache}.` : "Answered from the response cache."));
    if (this.head.cheaper) parts.push(make("p", `The budget had too little left: the call went the route ${this.head.cheaper}.`));
    if (found.clamped != null) parts.push(make("p", `What is left of the budget allowed at most ${number(found.clamped)} output tokens.`));
    if (found.verdicts?.length) {
      const list = make("ul");
      for (const one of found.verdicts) {
        const item = make("li", `${one.check} ${one.when}: ${one.found.join(", ")}. ${one.done} `, one.stopped ? "stopped" : "");
        item.append(make("span", one.policy, "quiet"));
        list.append(item);
      }
      details(`Policies: ${found.verdicts.length === 1 ? "one finding" : `${found.verdicts.length} findings`}`, list, true);
    }
    if (found.attempts?.length > 1 || found.fallback) {
      const list = make("ul");
      for (const one of found.attempts) list.append(make("li", `${one.why}${one.model}: ${one.outcome}, ${one.took}`));
      details(found.fallback ? "Went to a fallback" : `${found.attempts.length} attempts`, list, true);
    }
    if (found.tokens?.length) {
      const table = make("table");
      for (const one of found.tokens) {
        const row = make("tr");
        const head = make("th", one.name);
        head.scope = "row";
        row.append(head, make("td", one.tokens, "n"), make("td", one.cost, "n"));
        table.append(row);
      }
      details(`Tokens by class${found.estimated ? ", estimated" : ""}`, table);
    }
    if (found.link) {
      const line = make("p");
      const anchor = make("a", "The call's story");
      anchor.href = found.link;
      line.append(anchor);
      parts.push(line);
    }
    place.replaceChildren(...parts);
  }
}
