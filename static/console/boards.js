// Charts of the on-call dashboards. Figures come with the page and, live, from the server; the table behind each chart is fetched
// when it is opened. A click on a point opens the calls behind it.
(function () {
  "use strict";
  var holder = document.getElementById("board-data");
  if (!holder || !window.uPlot) return;
  var data = JSON.parse(holder.textContent);
  var plots = {};
  var thin = "\u2009";
  var HEIGHT = 200;

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function digits(value) {
    return value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  }
  function short(value) {
    if (value < 10000) return value % 1 ? value.toFixed(1) : String(value).replace(/\B(?=(\d{3})+$)/g, thin);
    if (value < 999500) return digits(value / 1e3) + thin + "k";
    return value < 9995e5 ? digits(value / 1e6) + thin + "M" : digits(value / 1e9) + thin + "G";
  }
  var units = {
    count: { text: short, axis: function (mark) { return mark % 1 ? "" : short(mark); }, least: 4 },
    level: { text: function (value) { return value < 100 ? value.toFixed(1) : short(Math.round(value)); }, axis: short, least: 0.5 },
    share: { text: function (value) { return value && value < 0.05 ? "<" + thin + "0.1" + thin + "%" : value.toFixed(1) + thin + "%"; },
             axis: function (mark) { return Math.round(mark * 100) / 100 + thin + "%"; }, least: 1 },
    duration: {
      text: function (us) {
        if (us < 999.5) return Math.round(us) + thin + "µs";
        return us < 999500 ? digits(us / 1e3) + thin + "ms" : digits(us / 1e6) + thin + "s";
      },
      axis: function (mark) { return mark === 0 ? "0" : mark < 1e6 ? mark / 1e3 + thin + "ms" : mark / 1e6 + thin + "s"; },
      least: 1000,
    },
  };

  // What is stacked is drawn from the top of the pile to its foot; ``order`` are places in ``chart.series``.
  function order(chart) {
    var places = chart.series.map(function (_, place) { return place; });
    return chart.drawn === "stack" ? places.reverse() : places;
  }
  function columns(chart) {
    if (chart.drawn !== "stack") return [data.times].concat(chart.series.map(function (one) { return one.values; }));
    var sums = data.times.map(function () { return 0; });
    var piled = chart.series.map(function (one) {
      return one.values.map(function (value, at) {
        sums[at] += value || 0;
        return sums[at];
      });
    });
    return [data.times].concat(piled.reverse());
  }

  var bars = uPlot.paths.bars({ size: [0.78, 26], gap: 0 });
  function lonely(plot, index) {
    var found = [];
    plot.data[index].forEach(function (value, at, values) {
      if (value != null && values[at - 1] == null && values[at + 1] == null) found.push(at);
    });
    return found;
  }
  function drawn(chart, place) {
    var one = chart.series[place];
    var unit = units[chart.unit];
    var bar = chart.drawn !== "line" && !one.before;
    return {
      label: one.label, stroke: css(one.colour), width: bar ? 0 : 1.75, fill: bar ? css(one.colour) : undefined,
      dash: one.dashed ? [5, 4] : undefined, paths: bar ? bars : undefined, spanGaps: false,
      points: bar ? { show: false } : { show: true, filter: lonely, size: 4, fill: css(one.colour), width: 0 },
      value: function (_, __, ___, at) {
        var value = at == null ? null : one.values[at];
        return value == null ? "–" : unit.text(value);
      },
    };
  }

  var clock = new Intl.DateTimeFormat(navigator.language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  // Days are those of UTC, wherever the viewer is; hours and minutes are the viewer's own.
  var zone = data.bucket >= 86400 ? "UTC" : undefined;
  var date = new Intl.DateTimeFormat(navigator.language, { day: "numeric", month: "short", timeZone: zone });
  var calendar = new Intl.DateTimeFormat(navigator.language, { weekday: "short", day: "numeric", month: "short", timeZone: zone });
  function timeAxis(_, marks) {
    return marks.map(function (mark) {
      var at = new Date(mark * 1000);
      return data.bucket >= 86400 || (at.getHours() === 0 && at.getMinutes() === 0) ? date.format(at) : clock.format(at);
    });
  }
  function moment(seconds) {
    var at = new Date(seconds * 1000);
    if (data.bucket >= 86400) return calendar.format(at);
    return data.times[data.times.length - 1] - data.times[0] > 90000 ? calendar.format(at) + " " + clock.format(at) : clock.format(at);
  }

  // Which series a click means: the part of a pile that it hit, or the line that is nearest.
  function hit(chart, plot) {
    var at = plot.cursor.idx;
    var y = plot.posToVal(plot.cursor.top, "y");
    if (chart.drawn === "stack") {
      var sum = 0;
      for (var place = 0; place < chart.series.length; place++) {
        sum += chart.series[place].values[at] || 0;
        if (y <= sum) return chart.series[place];
      }
      return null;
    }
    var nearest = null;
    var least = Infinity;
    chart.series.forEach(function (one) {
      if (one.before || one.values[at] == null) return;
      var far = Math.abs(plot.valToPos(one.values[at], "y") - plot.cursor.top);
      if (far < least) { least = far; nearest = one; }
    });
    return least < 24 ? nearest : null;
  }
  function open(name, plot) {
    var at = plot.cursor.idx;
    var chart = data.charts[name];
    if (at == null || !chart || !chart.series.some(function (one) { return !one.before && one.values[at]; })) return;
    var url = new URL(data.href, window.location.href);
    ["range", "from", "to"].forEach(function (member) { url.searchParams.delete(member); });
    url.searchParams.set("from", new Date(data.times[at] * 1000).toISOString().slice(0, 19) + "Z");
    url.searchParams.set("to", new Date((data.times[at] + data.bucket) * 1000).toISOString().slice(0, 19) + "Z");
    var one = hit(chart, plot);
    if (one && one.narrowed)
      new URLSearchParams(one.narrowed).forEach(function (value, member) { url.searchParams.set(member, value); });
    window.location.href = url.pathname + url.search;
  }

  var colours = { publish: "--accent", rotation: "--odd", switch: "--gold", incident: "--bad" };
  function marks(plot) {
    var context = plot.ctx;
    context.save();
    context.lineWidth = 1.5 * (window.devicePixelRatio || 1);
    context.setLineDash([3, 3]);
    data.marks.forEach(function (mark) {
      var x = plot.valToPos(mark.at, "x", true);
      if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) return;
      context.strokeStyle = context.fillStyle = css(colours[mark.kind] || "--muted");
      context.beginPath();
      context.moveTo(x, plot.bbox.top);
      context.lineTo(x, plot.bbox.top + plot.bbox.height);
      context.stroke();
      context.fillRect(x - 3, plot.bbox.top - 3, 6, 6);
    });
    context.restore();
  }

  function height(element) {
    var panel = element.closest(".panel");
    return panel && (panel === document.fullscreenElement || panel.classList.contains("filling")) ? Math.max(HEIGHT, window.innerHeight - 240) : HEIGHT;
  }
  // Without a pointer the legend shows the last bucket that has something to show.
  function rest(plot, chart) {
    var last = -1;
    chart.series.forEach(function (one) {
      one.values.forEach(function (value, at) { if (value && !one.before) last = Math.max(last, at); });
    });
    if (last >= 0) plot.setLegend({ idx: last });
  }

  function draw(name) {
    var element = document.getElementById("chart-" + name);
    var chart = data.charts[name];
    if (plots[name]) plots[name].destroy();
    delete plots[name];
    if (!element || !chart) return;
    var unit = units[chart.unit];
    var axis = {
      stroke: css("--muted"), font: "11.5px Inter, system-ui, sans-serif", grid: { stroke: css("--line"), width: 1 },
      ticks: { show: false }, border: { show: false },
    };
    plots[name] = new uPlot(
      {
        width: element.clientWidth - 16, height: height(element), padding: [8, 18, 0, 0],
        tzDate: zone ? function (seconds) { return uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"); } : undefined,
        legend: { live: true, markers: { width: 0, fill: function (plot, index) { return plot.series[index].stroke(); } } },
        cursor: { sync: { key: "board" }, y: false, drag: { x: false, y: false }, points: { size: 6 }, focus: { prox: -1 } },
        scales: {
          x: { time: true, range: function () { return [data.times[0] - data.bucket * 0.6, data.times[data.times.length - 1] + data.bucket * 0.6]; } },
          y: { range: function (_, low, high) { return [0, Math.max(unit.least, (high || 0) * 1.08)]; } },
        },
        axes: [
          Object.assign({}, axis, { grid: { show: false }, size: 26, space: 64, values: timeAxis }),
          Object.assign({}, axis, { size: 58, space: 36, values: function (_, found) { return found.map(unit.axis); } }),
        ],
        series: [{ value: function (plot, value, index, at) { return at == null ? "" : moment(value); }, label: "" }].concat(
          order(chart).map(function (place) { return drawn(chart, place); })),
        hooks: {
          draw: [marks],
          ready: [function (plot) { plot.over.addEventListener("click", function () { open(name, plot); }); rest(plot, chart); }],
          setCursor: [function (plot) { if (plot.cursor.idx == null) rest(plot, chart); }],
        },
      },
      columns(chart),
      element
    );
  }
  function drawAll() {
    Object.keys(data.charts).forEach(draw);
  }
  drawAll();
  document.addEventListener("console:scheme", drawAll);
  var waiting;
  window.addEventListener("resize", function () {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(drawAll, 120);
  });

  // --- tables behind charts ---------------------------------------------------------------------------------------
  function fetchTable(details) {
    var place = details.querySelector(".scroll");
    place.setAttribute("aria-busy", "true");
    fetch(details.dataset.behind, { headers: { "X-Requested-With": "fetch" }, credentials: "same-origin" })
      .then(function (answer) {
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.text();
      })
      .then(function (text) {
        var found = new DOMParser().parseFromString(text, "text/html").querySelector("#behind");
        if (!found) throw new Error("no table");
        window.Console.dress(found);
        place.replaceChildren(found);
        found.removeAttribute("id");
      })
      .catch(function () { place.textContent = "The table could not be fetched. Close and open it to try again."; })
      .finally(function () { place.removeAttribute("aria-busy"); });
  }
  document.querySelectorAll("details[data-behind]").forEach(function (details) {
    details.addEventListener("toggle", function () { if (details.open) fetchTable(details); });
  });

  // --- full screen ------------------------------------------------------------------------------------------------
  function filled() {
    document.querySelectorAll("[data-full]").forEach(function (button) {
      var panel = document.getElementById(button.dataset.full);
      var on = panel === document.fullscreenElement || panel.classList.contains("filling");
      button.setAttribute("aria-pressed", String(on));
    });
    drawAll();
  }
  document.querySelectorAll("[data-full]").forEach(function (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      var panel = document.getElementById(button.dataset.full);
      if (document.fullscreenElement) document.exitFullscreen();
      else if (panel.classList.contains("filling")) { panel.classList.remove("filling"); filled(); }
      else if (panel.requestFullscreen)
        panel.requestFullscreen().catch(function () { panel.classList.add("filling"); filled(); });
      else { panel.classList.add("filling"); filled(); }
    });
  });
  document.addEventListener("fullscreenchange", filled);
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    // Not every browser sees to it by itself; one that does has left already, and refuses.
    if (document.fullscreenElement) document.exitFullscreen().catch(function () {});
    document.querySelectorAll(".panel.filling").forEach(function (panel) { panel.classList.remove("filling"); filled(); });
  });

  window.ConsoleBoard = {
    update: function (fresh, spoken) {
      data = fresh;
      Object.keys(plots).forEach(function (name) { if (!data.charts[name]) { plots[name].destroy(); delete plots[name]; } });
      drawAll();
      Object.keys(spoken || {}).forEach(function (name) {
        var element = document.getElementById("chart-" + name);
        if (element) element.setAttribute("aria-label", spoken[name]);
      });
      document.querySelectorAll("details[data-behind][open]").forEach(fetchTable);
    },
  };
})();
