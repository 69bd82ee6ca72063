// Keeping what was found: a version of a prompt, a sample of it, an address of the setup.
import { post } from "./playground-stream.js";

const by = (id) => document.getElementById(id);

export class Keeping {
  constructor(page) {
    this.page = page;
    this.column = null;
    this.found = [];
    by("save-sample").addEventListener("click", () => this.sample());
    by("samples").addEventListener("change", (event) => {
      const chosen = this.found[Number(event.target.value)];
      if (!chosen) return;
      page.fields.fill(chosen.variables);
      page.say(`Filled in from the sample ${chosen.name}.`);
      page.changed();
    });
    by("share").addEventListener("click", () => this.share());
    by("version-save").addEventListener("click", () => this.saveVersion());
    by("sample-save").addEventListener("click", () => this.saveSample());
    by("version-where").addEventListener("change", () => { by("version-slug-part").hidden = by("version-where").value !== ""; });
    by("share-copy").addEventListener("click", async () => {
      by("share-url").select();
      try { await navigator.clipboard.writeText(by("share-url").value); by("share-copy").textContent = "Copied"; } catch { by("share-copy").textContent = "Press Ctrl-C"; }
    });
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
        event.preventDefault();
        dialog.querySelector(".button.primary").click();
      });
    }
  }

  samples(found) {
    this.found = found;
    by("samples-part").hidden = !found.length;
    by("samples").replaceChildren(new Option("a sample", ""), ...found.map((one, index) => new Option(one.name || `sample ${index + 1}`, index)));
  }

  problem(id, words) {
    by(id).textContent = words;
    by(id).hidden = !words;
  }

  // A version ----------------------------------------------------------------------------------------------------------
  version(column) {
    this.column = column;
    const named = column.source === "prompt" && column.versions ? column.versions : null;
    const where = by("version-where");
    where.replaceChildren();
    if (named?.may_change) where.add(new Option(`${named.slug}: version ${named.newest + 1}`, named.id));
    if (this.page.choices.may_make_prompts) where.add(new Option("A new prompt of this project", ""));
    if (!where.options.length) {
      this.page.notice("warning", "You may not change prompts here; an operator or administrator of the project may.");
      return;
    }
    by("version-slug-part").hidden = where.value !== "";
    by("version-what").textContent = `Keeps the words of column ${column.letter}, its parameters, and its route.${column.words ? " A variable that is new gets the value that stands here in the prompt's samples." : ""}`;
    by("version-replace").checked = false;
    by("version-replace-part").hidden = true;
    this.problem("version-problem", "");
    by("version-dialog").showModal();
    (where.value ? by("version-note") : by("version-slug")).focus();
  }

  async saveVersion() {
    const { column, page } = this;
    const prompt = by("version-where").value;
    const project = page.project;
    try {
      const asked = { column: { ...column.asked(), variables: page.fields.given() }, prompt, note: by("version-note").value, slug: by("version-slug").value.trim(), replace_draft: by("version-replace").checked };
      if (prompt) asked.expected = column.versions.newest;
      const told = await post(page.urls.save_version, asked);
      by("version-dialog").close();
      by("version-note").value = by("version-slug").value = "";
      // Another project that was chosen since has prompts of its own.
      if (page.project === project) await this.renewed(told, column);
      const link = document.createElement("a");
      link.href = told.url;
      link.textContent = `${told.slug}, version ${told.version}`;
      page.notice("success", "Saved as ", link, ". It serves once a label points to it and that is published.");
      page.say(`Saved as version ${told.version} of ${told.slug}.`);
    } catch (failed) {
      this.problem("version-problem", failed.message);
      if (failed.code === "draft_in_the_way") {
        by("version-replace-part").hidden = false;
        by("version-replace-part").querySelector("span").textContent = `Replace the draft by ${column.versions.draft_by || "somebody"}`;
      }
    }
  }

  // What there is of a prompt has changed: every column that shows it is told, the one that was saved shows the new version.
  async renewed(told, column) {
    const { page } = this;
    page.cache.clear();
    if (!page.choices.prompts.some((one) => one.id === told.prompt)) {
      page.choices.prompts.push({ id: told.prompt, slug: told.slug, shared: false, newest: Number(told.version), draft: false });
      page.choices.prompts.sort((a, b) => a.slug.localeCompare(b.slug));
    }
    for (const one of page.columns) {
      const before = one.state();
      one.fill();
      if (one === column) {
        one.setSource("prompt", true);
        await one.choose(told.prompt, told.version);
      }
      else if (before.prompt) await one.choose(before.prompt, before.version, one.words);
    }
  }

  // A sample -----------------------------------------------------------------------------------------------------------
  sample() {
    const prompts = new Map();
    for (const one of this.page.columns) if (one.source === "prompt" && one.versions?.may_change) prompts.set(one.versions.id, one.versions.slug);
    by("sample-prompt").replaceChildren(...[...prompts].map(([id, slug]) => new Option(slug, id)));
    this.problem("sample-problem", "");
    by("sample-dialog").showModal();
    by("sample-name").focus();
  }

  async saveSample() {
    const { page } = this;
    const prompt = by("sample-prompt").value;
    try {
      const told = await post(page.urls.save_sample, { project: page.project, prompt, name: by("sample-name").value, variables: page.fields.given() });
      by("sample-dialog").close();
      by("sample-name").value = "";
      page.cache.clear();
      page.notice("success", `Saved as a sample, ${told.where}.`);
      page.say(`Saved as a sample, ${told.where}.`);
    } catch (failed) {
      this.problem("sample-problem", failed.message);
    }
  }

  // An address ---------------------------------------------------------------------------------------------------------
  async share() {
    const { page } = this;
    try {
      const columns = page.columns.map((one) => {
        const { run, ...state } = one.state();
        return state;
      });
      const told = await post(page.urls.share, { project: page.project, columns, variables: page.fields.typed() });
      by("share-url").value = told.url;
      by("share-copy").textContent = "Copy";
      by("share-words").textContent = `Whoever may use the playground in this project finds these columns and values there for ${told.days} days. The address itself says nothing of them.`;
      by("share-dialog").showModal();
      by("share-url").select();
    } catch (failed) {
      page.notice("error", failed.message);
    }
  }

  // The project's key --------------------------------------------------------------------------------------------------
  offerKey(words) {
    const { page } = this;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button small";
    button.textContent = "Issue another key";
    button.addEventListener("click", async () => {
      try {
        await post(page.urls.renew_key, { project: page.project });
        page.notice("success", "The playground has another key. Run again.");
      } catch (failed) {
        page.notice("error", failed.message);
      }
    });
    page.notice("error", `${words} `, button);
  }
}
