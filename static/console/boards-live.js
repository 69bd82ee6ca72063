// Keeps a dashboard current by server-sent events, while its tab is seen. The server sends what changed.
(function () {
  "use strict";
  var live = document.getElementById("live");
  if (!live || !window.EventSource) return;
  var text = document.getElementById("live-text");
  var toggle = document.getElementById("live-toggle");
  var said = document.getElementById("said");
  var marker = live.dataset.marker;
  var source = null;
  var paused = false;
  var again = null;
  var failures = 0;
  var lastSaid = 0;

  function show(state, words) {
    live.dataset.state = state;
    text.textContent = words;
  }
  function swap(id, html) {
    var place = document.getElementById("part-" + id);
    if (!place) return;
    var template = document.createElement("template");
    template.innerHTML = html;
    window.Console.dress(template.content);
    // The keyboard stays where it was: the same link, if it is still there.
    var held = place.contains(document.activeElement) && document.activeElement.getAttribute("href");
    place.replaceChildren(template.content);
    if (held) {
      var found = place.querySelector('[href="' + CSS.escape(held) + '"]') || place.querySelector("a, button");
      if (found) found.focus({ preventScroll: true });
    }
  }
  function apply(answer) {
    marker = answer.marker;
    Object.keys(answer.parts).forEach(function (id) { swap(id, answer.parts[id]); });
    if (window.ConsoleBoard) window.ConsoleBoard.update(answer.drawing, answer.spoken);
    var headline = document.querySelector("#part-verdict strong");
    if (headline && headline.textContent !== said.dataset.told && Date.now() - lastSaid > 8000) {
      said.textContent = said.dataset.told = headline.textContent;
      lastSaid = Date.now();
    }
  }
  function close() {
    window.clearTimeout(again);
    if (source) source.close();
    source = null;
  }
  function open() {
    close();
    if (paused || document.hidden) return;
    source = new EventSource(live.dataset.url + (live.dataset.url.indexOf("?") < 0 ? "?" : "&") + "marker=" + encodeURIComponent(marker));
    source.onopen = function () {
      failures = 0;
      show("on", "Live");
    };
    source.onmessage = function (event) { apply(JSON.parse(event.data)); };
    source.addEventListener("gone", function () {
      paused = true;
      close();
      toggle.hidden = true;
      show("lost", "What you may see has changed. Reload the page.");
    });
    source.onerror = function () {
      // A stream ends now and then and is opened again by the browser; only one that was refused stays closed.
      if (!source || source.readyState !== EventSource.CLOSED) return;
      failures += 1;
      if (failures > 1) show("lost", "Not reachable, trying again. Reload if it lasts.");
      again = window.setTimeout(open, Math.min(2000 * Math.pow(2, failures), 30000));
    };
  }
  toggle.hidden = false;
  toggle.addEventListener("click", function () {
    paused = !paused;
    toggle.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      close();
      show("off", "Paused");
    } else open();
  });
  document.addEventListener("visibilitychange", function () {
    if (document.hidden) close();
    else open();
  });
  window.addEventListener("pagehide", close);
  show("on", "Live");
  open();
})();
