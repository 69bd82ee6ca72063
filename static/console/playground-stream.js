// Talking to the server: questions as JSON, and one stream about all runs of the page that goes on where it broke off.
export const token = () => document.querySelector("#token [name=csrfmiddlewaretoken]").value;

export class Refused extends Error {
  constructor(status, told) {
    super(told?.message ?? `The console answered ${status}.`);
    this.status = status;
    this.code = told?.code ?? "";
    this.param = told?.param ?? "";
  }
}

const SIGNED_OUT = "You are signed out. Sign in in another tab, then go on here.";

async function answered(response) {
  if (response.type === "opaqueredirect" || response.status === 401) throw new Refused(401, { message: SIGNED_OUT, code: "signed_out" });
  let told = null;
  try { told = await response.json(); } catch { /* no JSON: a page of an error */ }
  if (!response.ok) {
    if (told?.error) throw new Refused(response.status, told.error);
    throw new Refused(response.status, { message: response.status === 403 ? "This is not allowed. Reload the page; your role may have changed." : `The console answered ${response.status}. Try again in a moment.` });
  }
  return told;
}

export async function get(url, query = {}) {
  return answered(await fetch(`${url}?${new URLSearchParams(query)}`, { redirect: "manual", credentials: "same-origin" }));
}

export async function post(url, asked) {
  const body = new URLSearchParams({ asked: JSON.stringify(asked) });
  return answered(await fetch(url, { method: "POST", body, redirect: "manual", credentials: "same-origin", headers: { "X-CSRFToken": token() } }));
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// What may be asked twice without harm, such as a run, which has an id: again and again while the network is away.
export async function insist(url, asked, { away, back, given }) {
  for (let n = 0; ; n += 1) {
    try {
      const told = await post(url, asked);
      if (n) back();
      return told;
    } catch (failed) {
      if (failed instanceof Refused || given()) throw failed;
      if (n > 40) throw new Error("The console could not be reached for some minutes. Nothing was sent again; look at Calls before you do.");
      away();
      await wait(Math.min(4000, 400 * 2 ** n));
    }
  }
}

export class Stream {
  constructor(url, { tell, state }) {
    this.url = url;
    this.tell = tell;
    this.state = state;
    this.told = new Map(); // run -> number of the last piece that was heard
    this.open = null;
    this.failures = 0;
    window.addEventListener("online", () => this.again(0));
    const seen = () => { if (!document.hidden && this.failures) this.again(0); };
    document.addEventListener("visibilitychange", seen);
    window.addEventListener("focus", seen);
  }

  follow(run) {
    if (!this.told.has(run)) this.told.set(run, 0);
    this.again(0);
  }

  drop(run) {
    this.told.delete(run);
    if (!this.told.size) this.close();
  }

  close() {
    clearTimeout(this.timer);
    this.open?.abort();
    this.open = null;
  }

  again(ms) {
    clearTimeout(this.timer);
    if (!this.told.size) return;
    this.timer = setTimeout(() => this.listen(), ms);
  }

  async listen() {
    this.close();
    const runs = [...this.told.keys()];
    if (!runs.length) return;
    const mine = (this.open = new AbortController());
    // A stream that says nothing at all for so long is dead, whatever the system believes.
    let watchdog = 0;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => mine.abort(), 40000);
    };
    try {
      alive();
      const query = new URLSearchParams(runs.map((run) => ["run", run]));
      const response = await fetch(`${this.url}?${query}`, {
        headers: { "Last-Event-ID": runs.map((run) => this.told.get(run)).join("."), Accept: "text/event-stream" },
        redirect: "manual", credentials: "same-origin", cache: "no-store", signal: mine.signal,
      });
      if (!response.ok) {
        if (response.status === 404) {
          for (const run of runs) {
            this.tell(run, { events: [{ t: "gone" }], end: true });
            this.drop(run);
          }
          return;
        }
        await answered(response);
      }
      this.failures = 0;
      this.state("on");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        alive();
        rest += value;
        const parts = rest.split("\n\n");
        rest = parts.pop();
        for (const part of parts) this.event(part, runs);
      }
      // It ends by itself now and then; what is left is told by the next one.
      if (this.open === mine) this.again(50);
    } catch (failed) {
      if (this.open !== mine) return;
      this.failures += 1;
      if (failed instanceof Refused && failed.code === "signed_out") {
        // Asked again once somebody comes back here, who has signed in elsewhere by then.
        this.state("lost", failed.message);
        return;
      }
      if (this.failures > 1 || !navigator.onLine) this.state("away", "Connection lost. Your runs go on; trying again.");
      this.again(Math.min(5000, 250 * 2 ** this.failures));
    } finally {
      clearTimeout(watchdog);
    }
  }

  event(text, runs) {
    let data = "";
    let mark = "";
    for (const line of text.split("\n")) {
      if (line.startsWith("data: ")) data += line.slice(6);
      else if (line.startsWith("id: ")) mark = line.slice(4);
    }
    if (!data || !mark) return;
    mark.split(".").forEach((number, index) => {
      if (this.told.has(runs[index])) this.told.set(runs[index], Number(number));
    });
    const told = JSON.parse(data);
    if (!this.told.has(told.run)) return;
    if (told.end) this.told.delete(told.run);
    this.tell(told.run, told);
  }
}
