// Keeps a page current: asks for changes about once a second while the tab is seen, and puts the parts that changed in
// place. The server answers 204 while nothing moved. A slow answer makes the next question wait ten times as long as it took.
(function () {
  "use strict";
  var live = document.getElementById("live");
  if (!live) return;
  var text = document.getElementById("live-text");
  var toggle = document.getElementById("live-toggle");
  var said = document.getElementById("said");
  var every = Number(live.dataset.every || 1000);
  var marker = live.dataset.marker;
  var paused = false;
  var failures = 0;
  var timer = null;
  var asking = null;
  var unsaid = 0;
  var lastSaid = 0;

  function show(state, words) {
    live.dataset.state = state;
    text.textContent = words;
  }

  function swap(id, html) {
    var place = document.getElementById("part-" + id);
    if (!place) return [];
    var template = document.createElement("template");
    template.innerHTML = html;
    window.Console.dress(template.content);
    var before = {};
    place.querySelectorAll("[data-key]").forEach(function (row) { before[row.dataset.key] = true; });
    var had = Object.keys(before).length > 0;
    var fresh = [];
    template.content.querySelectorAll("[data-key]").forEach(function (row) {
      if (!before[row.dataset.key]) {
        fresh.push(row.dataset.key);
        if (had) row.classList.add("fresh");
      }
    });
    // The keyboard stays where it was: the same link, if it is still there.
    var held = place.contains(document.activeElement) && document.activeElement.getAttribute("href");
    place.replaceChildren(template.content);
    if (held) {
      var again = place.querySelector('[href="' + CSS.escape(held) + '"]') || place.querySelector("a, button");
      if (again) again.focus({ preventScroll: true });
    }
    return fresh;
  }

  function say(words) {
    var now = Date.now();
    if (!words || now - lastSaid < 8000) return false;
    said.textContent = words;
    lastSaid = now;
    return true;
  }

  function apply(answer) {
    marker = answer.marker;
    if (answer.reload) {
      window.location.reload();
      return;
    }
    Object.keys(answer.parts || {}).forEach(function (id) {
      var fresh = swap(id, answer.parts[id]);
      if (id === "recent") unsaid += fresh.length;
    });
    if (answer.charts && window.ConsoleCharts) window.ConsoleCharts.update(answer.charts, answer.spoken);
    if (unsaid && say(unsaid === 1 ? "One new call." : unsaid + " new calls.")) unsaid = 0;
    if (answer.said) {
      lastSaid = 0;
      say(answer.said);
    }
    if (answer.done) {
      paused = true;
      live.hidden = true;
    }
  }

  function next(wait) {
    window.clearTimeout(timer);
    if (!paused && !document.hidden) timer = window.setTimeout(ask, wait);
  }

  function ask() {
    var began = performance.now();
    var url = live.dataset.url + (live.dataset.url.indexOf("?") < 0 ? "?" : "&") + "marker=" + encodeURIComponent(marker);
    // One question at a time: an answer that comes late would take back what a newer one told.
    if (asking) asking.abort();
    var abort = new AbortController();
    asking = abort;
    var limit = window.setTimeout(function () { abort.abort(); }, 20000);
    fetch(url, { headers: { "X-Requested-With": "fetch" }, redirect: "manual", signal: abort.signal, credentials: "same-origin" })
      .then(function (response) {
        if (response.type === "opaqueredirect" || response.status === 401 || response.status === 403) {
          paused = true;
          show("lost", "Signed out. Reload to sign in.");
          toggle.hidden = true;
          return null;
        }
        if (response.status === 204) return {};
        if (!response.ok) throw new Error(String(response.status));
        return response.json();
      })
      .then(function (answer) {
        if (!answer || asking !== abort) return;
        failures = 0;
        if (answer.marker) apply(answer);
        if (!paused) show("on", "Live");
        next(Math.max(every, Math.min(10 * (performance.now() - began), 30000)));
      })
      .catch(function () {
        if (paused || document.hidden || asking !== abort) return;
        failures += 1;
        if (failures > 1) show("lost", "Not reachable, trying again");
        next(Math.min(every * Math.pow(2, failures), 15000));
      })
      .finally(function () {
        window.clearTimeout(limit);
        if (asking === abort) asking = null;
      });
  }

  toggle.hidden = false;
  toggle.addEventListener("click", function () {
    paused = !paused;
    toggle.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      window.clearTimeout(timer);
      if (asking) asking.abort();
      show("off", "Paused");
    } else {
      show("on", "Live");
      next(0);
    }
  });
  document.addEventListener("visibilitychange", function () {
    if (document.hidden) {
      window.clearTimeout(timer);
      if (asking) asking.abort();
    } else if (!paused) next(0);
  });
  show("on", "Live");
  next(every);
})();
