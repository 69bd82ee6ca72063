// A policy tried on calls, as it goes on: how many were looked at, how many matched, and a way to stop. Without this script the
// form works too, for as many calls as can be looked at while one waits.
(function () {
  "use strict";
  var STREAM = "application/x-ndjson";
  var SAY_EVERY_MS = 8000;

  function follow(place) {
    var form = place.closest("form");
    var part = function (name) { return place.querySelector("[data-trial-" + name + "]"); };
    var bar = place.querySelector("progress");
    var under = null;
    var last = null;
    var saidAt = 0;
    var count = function (number) { return number.toLocaleString("en"); };

    function say(words, always) {
      if (!always && Date.now() - saidAt < SAY_EVERY_MS) return;
      saidAt = Date.now();
      part("said").textContent = words;
    }

    function show(told) {
      last = told;
      bar.max = Math.max(told.of, 1);
      bar.value = told.done;
      var words = count(told.done) + " of " + count(told.of) + " calls looked at, " + count(told.matched) + " matched so far";
      part("words").textContent = words;
      // A link that has the keyboard keeps it: the whole outcome comes in the end.
      if (told.over || !part("outcome").contains(document.activeElement)) {
        part("outcome").innerHTML = told.html;
        if (window.Console) window.Console.dress(part("outcome"));
      }
      say(words, false);
    }

    function ended(words) {
      under = null;
      var held = document.activeElement === part("cancel");
      part("progress").hidden = true;
      if (held) form.querySelector("[type=submit]").focus();
      say(words, true);
    }

    function stopped(why) {
      var words = why + (last ? " after " + count(last.done) + " of " + count(last.of) + " calls: version " + last.version + " " + last.words + "." : ".");
      part("words").textContent = words;
      ended(words);
      var note = document.createElement("p");
      note.className = "mb-2";
      note.textContent = words;
      part("outcome").prepend(note);
    }

    async function read(answer) {
      var reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      var rest = "";
      for (;;) {
        var piece = await reader.read();
        if (piece.done) break;
        var lines = (rest + piece.value).split("\n");
        rest = lines.pop();
        lines.forEach(function (line) { show(JSON.parse(line)); });
      }
      if (!last || !last.over) throw new Error("broken off");
    }

    async function run() {
      var stop = new AbortController();
      under = stop;
      last = null;
      bar.removeAttribute("value");
      part("outcome").replaceChildren();
      part("words").textContent = "Looking for calls";
      part("progress").hidden = false;
      say("Looking for calls", true);
      try {
        var answer = await fetch(form.action, {
          method: "POST", body: new FormData(form), headers: { accept: STREAM }, signal: stop.signal,
          credentials: "same-origin", redirect: "error",
        });
        if (!answer.ok || !(answer.headers.get("content-type") || "").startsWith(STREAM)) {
          // Something is wrong with what was asked, or with who asks: the page itself says it.
          under = null;
          form.submit();
          return;
        }
        await read(answer);
        ended("Version " + last.version + " " + last.words + ".");
      } catch (error) {
        stopped(stop.signal.aborted ? "Stopped" : "The connection broke off");
      }
    }

    form.addEventListener("submit", function (event) {
      event.preventDefault();
      if (!under) run();
    });
    part("cancel").addEventListener("click", function () { if (under) under.abort(); });
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-trial]").forEach(follow);
  });
})();
