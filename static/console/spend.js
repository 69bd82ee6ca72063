// Charts of the Spend page: what each day cost, and what it added up to with the forecast's range. The table behind them says
// the same in words. A click on a day opens its calls.
(function () {
  "use strict";
  var holder = document.getElementById("spend-data");
  if (!window.uPlot || !holder) return;
  var data = JSON.parse(holder.textContent);
  var plots = [];
  // Days are UTC: positions are numbers of days, and labels never pass through the viewer's zone.
  var days = data.days.map(function (day) { return new Date(day + "T00:00:00Z"); });
  var positions = data.days.map(function (_, index) { return index; });
  var short = new Intl.DateTimeFormat(navigator.language, { day: "numeric", month: "short", timeZone: "UTC" });
  var long = new Intl.DateTimeFormat(navigator.language, { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function usd(nano) {
    if (nano == null) return "–";
    var value = nano / 1e9;
    var text = value.toFixed(value === 0 || value >= 1 ? 2 : value >= 0.01 ? 4 : 6);
    return "$" + text.replace(/\B(?=(\d{3})+(?=\.))/g, "\u2009");
  }
  function usdAxis(_, marks) {
    var places = marks.some(function (mark) { return mark && mark < 1e7; }) ? 4 : marks.some(function (mark) { return mark % 1e9; }) ? 2 : 0;
    return marks.map(function (mark) {
      return mark === 0 ? "$0" : "$" + (mark / 1e9).toFixed(places).replace(/\B(?=(\d{3})+(?!\d))/g, places ? "" : "\u2009");
    });
  }
  function dayAxis(_, marks) {
    return marks.map(function (mark) {
      return mark % 1 || !days[mark] ? "" : short.format(days[mark]);
    });
  }
  function value(_, amount) {
    return usd(amount);
  }
  function line(label, colour, dash, width) {
    return { label: label, stroke: css(colour), width: width || 1.75, dash: dash, points: { show: days.length < 2, size: 5 }, value: value };
  }
  function open(plot) {
    var at = plot.cursor.idx;
    if (at == null || data.spend[at] == null) return;
    var next = new Date(days[at].getTime() + 86400000);
    var query = new URLSearchParams(data.href.split("?")[1] || "");
    query.set("from", days[at].toISOString().slice(0, 16) + "Z");
    query.set("to", next.toISOString().slice(0, 16) + "Z");
    window.location.href = data.href.split("?")[0] + "?" + query.toString();
  }
  function draw(id, series, columns, bands) {
    var element = document.getElementById(id);
    if (!element) return;
    var axis = {
      stroke: css("--muted"), font: "11.5px Inter, system-ui, sans-serif",
      grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, border: { show: false },
    };
    plots.push(
      new uPlot(
        {
          width: element.clientWidth - 16, height: 200, padding: [8, 18, 0, 0], bands: bands,
          legend: { live: true, markers: { width: 0, fill: function (plot, index) { return plot.series[index].stroke(); } } },
          cursor: { sync: { key: "spend" }, y: false, drag: { x: false, y: false }, points: { size: 6 }, focus: { prox: -1 } },
          scales: {
            x: { time: false, range: function () { return [-0.6, days.length - 0.4]; } },
            y: { range: function (_, low, high) { return [0, high ? high * 1.08 : 1e9]; } },
          },
          axes: [
            Object.assign({}, axis, { grid: { show: false }, size: 26, space: 58, incrs: [1, 2, 5, 7, 14, 30, 60], values: dayAxis }),
            Object.assign({}, axis, { size: 64, space: 36, values: usdAxis }),
          ],
          series: [{ label: "", value: function (_, at) { return at == null || !days[at] ? "" : long.format(days[at]); } }].concat(series),
          hooks: {
            ready: [function (plot) { plot.over.addEventListener("click", function () { open(plot); }); rest(plot); }],
            setCursor: [function (plot) { if (plot.cursor.idx == null) rest(plot); }],
          },
        },
        [positions].concat(columns),
        element
      )
    );
  }
  // Without a pointer the legend shows the last day that has something to show.
  function rest(plot) {
    var last = -1;
    data.spend.forEach(function (amount, index) { if (amount != null) last = index; });
    if (last >= 0) plot.setLegend({ idx: last });
  }
  function drawAll() {
    plots.forEach(function (plot) { plot.destroy(); });
    plots = [];
    var bars = uPlot.paths.bars({ size: [0.72, 34], radius: 0.1 });
    var compared = data.before.some(function (amount) { return amount != null; });
    var daily = [{ label: "Spend", fill: css("--accent"), stroke: css("--accent"), width: 0, paths: bars, points: { show: false }, value: value }];
    var columns = [data.spend];
    if (compared) {
      daily.push(line("Before", "--gold", [4, 3]));
      columns.push(data.before);
    }
    draw("chart-days", daily, columns);
    var course = [line("So far", "--accent", undefined, 2.25)];
    columns = [data.course];
    if (compared) {
      course.push(line("Before", "--gold", [4, 3]));
      columns.push(data.courseBefore);
    }
    var bands = [];
    if (data.likely.length) {
      var at = course.length + 1;
      // The ends of the range are in the sentence below the chart, not in the legend.
      var most = line("At most", "--odd", [1, 4], 1), least = line("At least", "--odd", [1, 4], 1);
      most.class = least.class = "unsaid";
      course.push(line("Likely", "--odd", [2, 3]), most, least);
      columns.push(data.likely, data.high, data.low);
      bands.push({ series: [at + 1, at + 2], fill: css("--odd-soft") });
    }
    draw("chart-course", course, columns, bands);
  }
  drawAll();
  document.addEventListener("console:scheme", drawAll);
  var waiting;
  window.addEventListener("resize", function () {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(function () {
      plots.forEach(function (plot) { plot.setSize({ width: plot.root.parentNode.clientWidth - 16, height: 200 }); });
    }, 120);
  });
})();
