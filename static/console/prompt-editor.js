// The editor of prompts: rows of variables follow their type, and the preview follows what is typed. The server renders and
// checks (bounded); without this script the form works too, and saving says what is wrong.
const startEditor = () => {
  const form = document.querySelector("#prompt_form");
  const panel = document.querySelector("[data-prompt-preview]");
  const rows = document.querySelector("[data-variables]");
  if (!form || !panel || !rows) return;
  const $ = (name, root = panel) => root.querySelector(`[data-${name}]`);
  const field = (name) => form.elements.namedItem(name);
  const units = { text: "(characters)", integer: "", number: "", list: "(items)", object: "(characters of JSON)" };

  // Right below what it shows; without this script it stands at the end.
  field("user").closest("fieldset")?.after(panel);
  panel.classList.add("prompt-placed");

  // Variables ---------------------------------------------------------------------------------------------------------
  const part = (row, name) => row.querySelector(`[data-variable-part="${name}"]`);
  const follow = (row) => {
    const kind = part(row, "type").value;
    for (const one of row.querySelectorAll("[data-variable-for]")) one.hidden = !one.dataset.variableFor.split(" ").includes(kind);
    const unit = row.querySelector("[data-variable-unit]");
    if (unit) unit.textContent = units[kind] ?? "";
  };
  const every = () => [...rows.querySelectorAll("[data-variable]")];
  const add = () => {
    const index = every().length;
    const blank = $("variable-blank", rows).innerHTML.replaceAll("__row__", index).replaceAll("__number__", index + 1);
    $("variable-blank", rows).insertAdjacentHTML("beforebegin", blank);
    const row = every().at(-1);
    follow(row);
    return row;
  };
  const button = $("variable-add", rows);
  button.hidden = false;
  button.addEventListener("click", () => part(add(), "name").focus());
  every().forEach(follow);

  const value = (text) => {
    try { return JSON.parse(text); } catch { return text.trim(); }
  };
  const limits = {
    text: ["min_length", "max_length"], integer: ["minimum", "maximum"], number: ["minimum", "maximum"],
    list: ["", "max_items"], object: ["", "max_length"],
  };
  const declared = () => every().flatMap((row) => {
    const name = part(row, "name").value.trim();
    if (!name) return [];
    const kind = part(row, "type").value;
    const found = { name, type: kind };
    if (!part(row, "required").checked) found.required = false;
    if (part(row, "trusted").checked) found.trusted = true;
    const given = part(row, "default").value;
    if (given.trim()) found.default = ["text", "choice"].includes(kind) ? given : value(given);
    ["least", "most"].forEach((side, index) => {
      const text = part(row, side).value.trim();
      const limit = (limits[kind] ?? [])[index];
      if (limit && text) found[limit] = value(text);
    });
    if (kind === "choice") found.choices = part(row, "choices").value.split("\n").map((line) => line.trim()).filter(Boolean);
    const told = part(row, "description").value.trim();
    if (told) found.description = told;
    return [found];
  });

  // What is typed -----------------------------------------------------------------------------------------------------
  const content = () => {
    const variables = declared();
    const found = { variables: variables.length ? variables : null, route: field("route").value, parameters: {} };
    for (const name of ["system", "task", "context", "user"]) found[name] = field(name).value;
    const schema = field("output_schema").value.trim();
    if (schema) {
      try { found.output_schema = JSON.parse(schema); } catch { found.output_schema = schema; }
    }
    for (const name of ["temperature", "max_output_tokens"]) {
      const text = field(name).value.trim().replace(",", ".");
      if (text) found.parameters[name] = value(text);
    }
    if (field("reasoning_effort").value) found.parameters.reasoning_effort = field("reasoning_effort").value;
    return found;
  };

  // Values for the preview ----------------------------------------------------------------------------------------------
  const holder = $("preview-values");
  const kept = new Map();
  let shown = "";
  const fields = (names) => {
    const kinds = new Map(declared().map((one) => [one.name, one]));
    const wanted = names.map((name) => [name, kinds.get(name) ?? { name, type: "text" }]);
    const key = JSON.stringify(wanted.map(([name, one]) => [name, one.type, one.choices]));
    if (key === shown) return;
    shown = key;
    const focused = document.activeElement?.dataset?.previewValue;
    holder.replaceChildren(...wanted.map(([name, one]) => {
      const box = document.createElement("div");
      const label = document.createElement("label");
      label.htmlFor = `preview-${name}`;
      label.textContent = name + (["list", "object"].includes(one.type) ? " (JSON)" : "");
      let input;
      if (one.type === "choice" || one.type === "boolean") {
        input = document.createElement("select");
        for (const text of one.type === "boolean" ? ["true", "false"] : one.choices ?? []) input.add(new Option(text, text));
      } else {
        input = document.createElement(["text", "list", "object"].includes(one.type) ? "textarea" : "input");
        if (input.rows) input.rows = 2;
      }
      input.id = label.htmlFor;
      input.dataset.previewValue = name;
      input.dataset.kind = one.type;
      const usual = { integer: "1", number: "1", list: "[]", object: "{}" }[one.type];
      if (kept.has(name)) input.value = kept.get(name);
      else if (usual) input.value = usual;
      else if (one.type === "text") input.value = `[${name}]`;
      box.append(label, input);
      return box;
    }));
    if (focused) document.getElementById(`preview-${focused}`)?.focus();
  };
  const values = () => {
    const found = {};
    for (const input of holder.querySelectorAll("[data-preview-value]")) {
      const text = input.value;
      kept.set(input.dataset.previewValue, text);
      const kind = input.dataset.kind;
      found[input.dataset.previewValue] = ["text", "choice"].includes(kind) ? text : value(text);
    }
    return found;
  };

  // Asking the server -----------------------------------------------------------------------------------------------------
  const status = $("preview-status");
  let waiting = 0;
  let running = null;
  const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
  const ask = async () => {
    running?.abort();
    const mine = (running = new AbortController());
    const body = { content: content(), variables: values() };
    try {
      const answer = await fetch(panel.dataset.url, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRFToken": token },
        body: JSON.stringify(body),
        signal: mine.signal,
      });
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.error?.message ?? `The preview answered ${answer.status}.`);
      show(told);
    } catch (failed) {
      if (failed.name !== "AbortError") status.textContent = `No preview: ${failed.message}`;
    }
  };
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(ask, 350);
  };
  const cell = (text) => {
    const made = document.createElement("td");
    made.textContent = text;
    return made;
  };
  const show = (told) => {
    const before = shown;
    fields(told.inferred);
    if (shown !== before) soon();
    $("preview-system").textContent = told.system;
    $("preview-user").textContent = told.user;
    const problems = told.problems.map((one) => {
      const line = document.createElement("li");
      line.textContent = one.message;
      return line;
    });
    $("preview-problems").replaceChildren(...problems);
    const count = told.tokens == null ? "" : `${told.tokens.toLocaleString("en")} input tokens (o200k)${told.ceiling ? ` of ${told.ceiling.toLocaleString("en")} allowed` : ""}. `;
    const ready = problems.length ? `${problems.length} thing${problems.length > 1 ? "s" : ""} to put right.` : "This can be made a version.";
    if (status.textContent !== count + ready) status.textContent = count + ready;
    for (const name of ["system", "task", "context", "user"]) {
      const wrong = told.problems.some((one) => one.param === name);
      field(name).setAttribute("aria-invalid", wrong ? "true" : "false");
    }
    const names = new Set(declared().map((one) => one.name));
    const missing = names.size ? told.inferred.filter((name) => !names.has(name)) : [];
    $("preview-declare").hidden = !missing.length;
    const declare = $("declare");
    declare.textContent = `Declare ${missing.join(", ")} as text`;
    declare.className = "prompt-button";
    declare.onclick = () => {
      for (const name of missing) {
        const row = every().find((one) => !part(one, "name").value.trim()) ?? add();
        part(row, "name").value = name;
      }
      soon();
    };
    const costs = $("preview-costs");
    costs.hidden = !told.costs.length;
    costs.querySelector("tbody").replaceChildren(...told.costs.map((one) => {
      const line = document.createElement("tr");
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = one.model + (one.role === "fallback" ? " (fallback)" : "");
      const usd = (text) => (text == null ? "no price" : `$${text}`);
      line.append(
        name,
        cell(`${one.exact ? "" : "about "}${one.tokens.toLocaleString("en")}`),
        cell(usd(one.input_usd)),
        cell(one.most_usd == null ? "no price" : `${usd(one.most_usd)} (${one.output_tokens.toLocaleString("en")} tokens)`),
        cell(one.fits ? "yes" : `no: its window is ${one.context_window.toLocaleString("en")}`),
      );
      return line;
    }));
  };
  form.addEventListener("input", (event) => {
    if (event.target.dataset?.variablePart === "type") follow(event.target.closest("[data-variable]"));
    soon();
  });
  form.addEventListener("change", (event) => {
    if (event.target.dataset?.variablePart === "type") follow(event.target.closest("[data-variable]"));
    soon();
  });
  panel.addEventListener("input", soon);
  panel.addEventListener("change", soon);
  ask();
};

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startEditor);
else startEditor();
