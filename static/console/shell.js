// The frame around every page: navigation, account menu, colour scheme, times in the viewer's zone, copy buttons.
(function () {
  "use strict";

  // The admin loads this in its head, the console's own pages after their content.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();

  function start() {
    // --- navigation ------------------------------------------------------------------------------------------------
    var nav = document.getElementById("nav");
    var opener = document.querySelector("[data-nav-open]");
    function setNav(open) {
      if (!nav || !opener) return;
      document.documentElement.classList.toggle("nav-open", open);
      opener.setAttribute("aria-expanded", String(open));
      if (open) (nav.querySelector("[aria-current]") || nav.querySelector("a")).focus();
      else if (nav.contains(document.activeElement)) opener.focus();
    }
    if (nav && opener) {
      opener.addEventListener("click", function () {
        setNav(opener.getAttribute("aria-expanded") !== "true");
      });
      document.addEventListener("click", function (event) {
        if (
          document.documentElement.classList.contains("nav-open") &&
          !nav.contains(event.target) &&
          !opener.contains(event.target)
        )
          setNav(false);
      });
      var current = nav.querySelector("[aria-current]");
      if (current) current.scrollIntoView({ block: "nearest" });
    }

    document.addEventListener("keydown", function (event) {
      if (event.key !== "Escape") return;
      setNav(false);
      document.querySelectorAll("details.menu[open]").forEach(function (menu) {
        menu.open = false;
        menu.querySelector("summary").focus();
      });
    });
    document.addEventListener("click", function (event) {
      document.querySelectorAll("details.menu[open]").forEach(function (menu) {
        if (!menu.contains(event.target)) menu.open = false;
      });
    });

    // --- colour scheme ---------------------------------------------------------------------------------------------
    function markScheme() {
      document.querySelectorAll("[data-scheme-choice]").forEach(function (button) {
        button.setAttribute("aria-pressed", String(button.dataset.schemeChoice === window.ConsoleTheme.chosen()));
      });
    }
    document.querySelectorAll("[data-scheme-choice]").forEach(function (button) {
      button.addEventListener("click", function () {
        window.ConsoleTheme.choose(button.dataset.schemeChoice);
        markScheme();
      });
    });
    if (window.ConsoleTheme) markScheme();

    // --- times -----------------------------------------------------------------------------------------------------
    var styles = {
      instant: { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" },
      stamp: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" },
      minute: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
      second: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
      // Days that figures are kept by are those of UTC.
      day: { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" },
    };
    // With its zone, for pages that do not say elsewhere whose times they show.
    styles.moment = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
    styles.exact = Object.assign({ second: "2-digit" }, styles.moment);
    // Django's admin writes a moment as text, alone in its cell: make it one that the viewer's zone can be put on.
    var WRITTEN = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d) UTC$/;
    function markTimes(within) {
      within.querySelectorAll("#content td, #content th, #content .readonly, #content .readonly *").forEach(function (element) {
        var match = !element.children.length && element.tagName !== "TIME" && WRITTEN.exec(element.textContent.trim());
        if (!match) return;
        var time = document.createElement("time");
        time.dateTime = match[1] + "T" + match[2] + "Z";
        time.dataset.as = "moment";
        time.textContent = element.textContent.trim();
        element.replaceChildren(time);
      });
    }
    document.querySelectorAll("#content :is(td, th)[data-label]").forEach(function (cell) {
      cell.setAttribute("data-label", cell.getAttribute("data-label").replace(/^./, function (first) { return first.toUpperCase(); }));
    });
    var formats = {};
    function localTimes(within) {
      within.querySelectorAll("time[data-as]").forEach(function (element) {
        var at = new Date(element.dateTime);
        if (isNaN(at)) return;
        var as = element.dataset.as;
        if (!formats[as]) formats[as] = new Intl.DateTimeFormat(navigator.language, Object.assign({ hourCycle: "h23" }, styles[as] || styles.instant));
        element.textContent = formats[as].format(at);
        element.title = at.toISOString().replace("T", " ").replace(/\.\d+Z$/, "") + " UTC";
        element.removeAttribute("data-as");
      });
    }
    var zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    function localZone(within) {
      within.querySelectorAll("[data-zone]").forEach(function (element) {
        element.textContent = zone;
      });
    }

    // A moment typed in the viewer's zone goes into the address as UTC, so that the address means the same to everyone.
    function localInputs(within) {
      within.querySelectorAll("input[data-utc]").forEach(function (input) {
        var at = new Date(input.dataset.utc);
        if (input.dataset.utc && !isNaN(at)) {
          var shifted = new Date(at.getTime() - at.getTimezoneOffset() * 60000);
          input.value = shifted.toISOString().slice(0, 16);
        }
      });
    }
    // The admin's own fields for a moment are in UTC; beside them stands what that is for the viewer.
    function explainInputs(within) {
      within.querySelectorAll("#content input.vDateField[name$='_0']").forEach(function (day) {
        var hour = document.getElementsByName(day.name.replace(/_0$/, "_1"))[0];
        if (!hour) return;
        var both = day.parentElement;
        while (!both.contains(hour)) both = both.parentElement;
        var note = document.createElement("p");
        note.className = "zone-note";
        note.setAttribute("aria-live", "polite");
        both.after(note);
        var said;
        function say() {
          var now = day.value + " " + hour.value;
          if (now === said) return;
          said = now;
          var at = new Date(day.value + "T" + (hour.value || "00:00") + "Z");
          note.textContent = "In UTC." + (isNaN(at) ? "" : " For you: " + new Intl.DateTimeFormat(navigator.language, Object.assign({ hourCycle: "h23" }, styles.moment)).format(at));
        }
        say();
        // The calendar and the clock beside the fields fill them without an event.
        ["input", "change", "focusin", "click"].forEach(function (kind) {
          document.addEventListener(kind, function () { window.setTimeout(say, 0); });
        });
      });
    }
    document.addEventListener("submit", function (event) {
      event.target.querySelectorAll("input[data-utc]").forEach(function (input) {
        if (!input.value) {
          input.disabled = true;
          return;
        }
        var hidden = document.createElement("input");
        hidden.type = "hidden";
        hidden.name = input.name;
        hidden.value = new Date(input.value).toISOString().slice(0, 16) + "Z";
        input.removeAttribute("name");
        event.target.appendChild(hidden);
      });
      // Empty fields would only make the address longer.
      if ((event.target.method || "get") === "get")
        event.target.querySelectorAll("input[name], select[name]").forEach(function (field) {
          if (!field.value) field.disabled = true;
        });
    });
    document.addEventListener("change", function (event) {
      var form = event.target.closest("form[data-at-once]");
      if (form && event.target.matches("select")) form.requestSubmit();
    });
    window.addEventListener("pageshow", function (event) {
      // Back from a later page: fields that were switched off for the address work again.
      if (event.persisted) window.location.reload();
    });

    // --- copy ------------------------------------------------------------------------------------------------------
    document.addEventListener("click", function (event) {
      var button = event.target.closest("[data-copy], [data-copy-from]");
      if (!button) return;
      var source = button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
      var text = source ? source.textContent.trim() : button.dataset.copy;
      var said = button.querySelector("[data-said]") || button;
      var before = button.dataset.label || said.textContent;
      button.dataset.label = before;
      function say(word) {
        said.textContent = word;
        window.setTimeout(function () {
          said.textContent = before;
        }, 1600);
      }
      if (!navigator.clipboard) {
        // Off HTTPS browsers keep the clipboard shut: select the text, so that Ctrl-C does it.
        if (source) window.getSelection().selectAllChildren(source);
        say(source ? "Press Ctrl-C" : "Not allowed");
        return;
      }
      navigator.clipboard.writeText(text).then(
        function () {
          say("Copied");
        },
        function () {
          say("Not allowed");
        }
      );
    });

    // A link to a problem ends in #field-NAME: that field is shown and gets the focus.
    function showField() {
      var named = /^#field-([a-z_]+)$/.exec(window.location.hash);
      if (!named) return;
      var control = document.querySelector(
        '[name="' + named[1] + '"]:not([type=hidden]), [name^="' + named[1] + '_"]:not([type=hidden])'
      );
      var field = document.querySelector(".field-" + named[1]) || (control && control.parentElement);
      if (!field) return;
      field.classList.add("field-wrong");
      field.scrollIntoView({ block: "center" });
      if (control) control.focus({ preventScroll: true });
    }

    function dress(within) {
      markTimes(within);
      localTimes(within);
      localZone(within);
      localInputs(within);
    }
    window.Console = { dress: dress, zone: zone };
    dress(document);
    explainInputs(document);
    showField();
  }
})();
