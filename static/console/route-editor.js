// The route editor: rows are added, taken away and moved (buttons, Alt and an arrow key, or dragged), shares follow the weights,
// and the server looks at what stands there after each change. Nothing is decided here.
(function () {
  "use strict";
  var form = document.getElementById("route-form");
  if (!form) return;
  var whole = form.querySelector("fieldset.whole");
  var said = document.getElementById("said");
  var state = document.getElementById("state");
  var unsaved = document.getElementById("unsaved");
  var timer = null;
  var asking = null;
  var dirty = false;
  var leaving = false;

  function rowsOf(list) { return Array.from(list.querySelectorAll(":scope > [data-row]")); }

  function say(words) {
    said.textContent = "";
    // Said again even where it is the same.
    window.setTimeout(function () { said.textContent = words; }, 30);
  }

  function nameOf(row) {
    var select = row.querySelector("select");
    return select.value ? select.selectedOptions[0].textContent.trim() : select.dataset.what;
  }

  // Names for screen readers say which row it is, and of what.
  function number(list) {
    var label = list.dataset.label;
    var rows = rowsOf(list);
    rows.forEach(function (row, index) {
      var place = label + " " + (index + 1);
      row.querySelector("select").setAttribute("aria-label", place);
      var weight = row.querySelector("[data-weight]");
      if (weight) weight.setAttribute("aria-label", "Weight of target " + (index + 1));
      [["[data-up]", "Move up"], ["[data-down]", "Move down"], ["[data-remove]", "Remove"]].forEach(function (pair) {
        var button = row.querySelector(pair[0]);
        if (button) button.setAttribute("aria-label", pair[1] + " " + place.toLowerCase());
      });
      var up = row.querySelector("[data-up]");
      var down = row.querySelector("[data-down]");
      if (up) up.disabled = index === 0;
      if (down) down.disabled = index === rows.length - 1;
    });
  }

  function shares() {
    var rows = rowsOf(form.querySelector('[data-rows="targets"]'));
    var weights = rows.map(function (row) {
      var text = row.querySelector("[data-weight]").value.trim();
      return row.querySelector("select").value ? (text === "" ? 100 : Math.max(0, Number(text) || 0)) : 0;
    });
    var total = weights.reduce(function (sum, one) { return sum + one; }, 0);
    rows.forEach(function (row, index) {
      var share = total ? (100 * weights[index]) / total : 0;
      row.querySelector("[data-share]").textContent =
        (share === Math.round(share) ? share : share >= 0.1 ? share.toFixed(1) : "< 0.1") + " %";
      row.querySelector("[data-bar]").setAttribute("width", String(Math.round(share * 10)));
    });
  }

  function follow() {
    form.querySelectorAll("[data-when]").forEach(function (part) {
      var pair = part.dataset.when.split("=");
      var chosen = form.elements[pair[0]].value === pair[1];
      var field = part.querySelector("select, textarea");
      // What is written stays in sight until it is taken away.
      part.hidden = !chosen && !field.value;
    });
  }

  function put(parts) {
    Object.keys(parts).forEach(function (name) {
      var place = document.getElementById("part-" + name);
      if (!place) return;
      var template = document.createElement("template");
      template.innerHTML = parts[name];
      place.replaceChildren(template.content);
    });
  }

  function ask(cost) {
    window.clearTimeout(timer);
    if (asking) asking.abort();
    var mine = (asking = new AbortController());
    var body = new FormData(form);
    if (cost) body.append("cost", "1");
    return fetch(form.dataset.check, { method: "POST", body: body, signal: mine.signal, headers: { Accept: "application/json" } })
      .then(function (answer) {
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.json();
      })
      .then(function (told) {
        put(told.parts);
        if (state) state.textContent = told.state;
        say(told.said);
        return true;
      })
      .catch(function (problem) {
        if (problem.name === "AbortError") return;
        say(problem.message === "401" ? "You are signed out. Sign in again in another window, then go on here." : "What stands here could not be looked at. Saving still works.");
      });
  }

  function changed(soon) {
    dirty = true;
    if (unsaved) unsaved.hidden = false;
    shares();
    follow();
    window.clearTimeout(timer);
    timer = window.setTimeout(function () { ask(false); }, soon ? 60 : 450);
  }

  function move(row, by) {
    var list = row.parentElement;
    var rows = rowsOf(list);
    var at = rows.indexOf(row);
    var to = at + by;
    if (to < 0 || to >= rows.length) return false;
    list.insertBefore(row, by < 0 ? rows[to] : rows[to].nextElementSibling);
    number(list);
    changed(true);
    say(nameOf(row) + ": now " + (to + 1) + " of " + rows.length + ".");
    return true;
  }

  function add(name) {
    var list = form.querySelector('[data-rows="' + name + '"]');
    list.appendChild(document.getElementById("row-" + name).content.cloneNode(true));
    number(list);
    shares();
    var rows = rowsOf(list);
    rows[rows.length - 1].querySelector("select").focus();
  }

  function remove(row) {
    var list = row.parentElement;
    var at = rowsOf(list).indexOf(row);
    var name = nameOf(row);
    row.remove();
    number(list);
    var left = rowsOf(list);
    var next = left[Math.min(at, left.length - 1)];
    (next ? next.querySelector("select") : form.querySelector('[data-add="' + list.dataset.rows + '"]')).focus();
    changed(true);
    say(name + " was taken out.");
  }

  form.addEventListener("click", function (event) {
    var button = event.target.closest("button");
    if (!button) return;
    var row = button.closest("[data-row]");
    if (button.dataset.add) add(button.dataset.add);
    else if (button.hasAttribute("data-even")) {
      rowsOf(form.querySelector('[data-rows="targets"]')).forEach(function (one) { one.querySelector("[data-weight]").value = "100"; });
      changed(true);
      say("Every target has the same share.");
    } else if (button.hasAttribute("data-remove")) remove(row);
    else if (button.hasAttribute("data-up") || button.hasAttribute("data-down")) {
      move(row, button.hasAttribute("data-up") ? -1 : 1);
      // At an end this button rests; the keyboard goes on with the other one.
      (button.disabled ? row.querySelector(button.hasAttribute("data-up") ? "[data-down]" : "[data-up]") : button).focus();
    }
  });

  form.addEventListener("keydown", function (event) {
    if (!event.altKey || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    var row = event.target.closest('[data-row][draggable="true"]');
    if (!row) return;
    event.preventDefault();
    var held = event.target;
    move(row, event.key === "ArrowUp" ? -1 : 1);
    held.focus();
  });

  form.addEventListener("input", function () { changed(false); });
  form.addEventListener("change", function () { changed(true); });

  // --- dragging, beside the buttons ---
  var dragged = null;
  form.addEventListener("dragstart", function (event) {
    dragged = event.target.closest ? event.target.closest('[data-row][draggable="true"]') : null;
    if (!dragged || whole.disabled) return event.preventDefault();
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", nameOf(dragged));
    dragged.classList.add("dragged");
  });
  function target(event) {
    var row = dragged && event.target.closest ? event.target.closest("[data-row]") : null;
    return row && row !== dragged && row.parentElement === dragged.parentElement ? row : null;
  }
  function below(row, event) {
    var box = row.getBoundingClientRect();
    return event.clientY > box.top + box.height / 2;
  }
  function unmark() { form.querySelectorAll(".row.over").forEach(function (row) { row.classList.remove("over", "below"); }); }
  form.addEventListener("dragover", function (event) {
    var row = target(event);
    if (!row) return;
    event.preventDefault();
    unmark();
    row.classList.add("over");
    row.classList.toggle("below", below(row, event));
  });
  form.addEventListener("drop", function (event) {
    var row = target(event);
    if (!row) return;
    event.preventDefault();
    var list = row.parentElement;
    list.insertBefore(dragged, below(row, event) ? row.nextElementSibling : row);
    number(list);
    changed(true);
    say(nameOf(dragged) + ": now " + (rowsOf(list).indexOf(dragged) + 1) + " of " + rowsOf(list).length + ".");
  });
  form.addEventListener("dragend", function () {
    if (dragged) dragged.classList.remove("dragged");
    dragged = null;
    unmark();
  });

  var estimate = document.querySelector("[data-estimate]");
  if (estimate) {
    estimate.addEventListener("click", function () {
      var before = estimate.textContent;
      estimate.disabled = true;
      estimate.textContent = "Estimating…";
      ask(true).then(function (done) {
        estimate.disabled = false;
        // Something that was typed meanwhile is looked at instead, without what it would have cost.
        estimate.textContent = done ? "Estimate again" : before;
      });
    });
  }

  form.addEventListener("submit", function () { leaving = true; });
  window.addEventListener("beforeunload", function (event) { if (dirty && !leaving) event.preventDefault(); });

  form.querySelectorAll("[data-rows]").forEach(number);
  shares();
  follow();
})();
