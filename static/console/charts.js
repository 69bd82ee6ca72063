// Charts of the Overview. The figures come from the page (and, live, from the same address again); the table behind each
// chart says the same in words. A click on a chart opens the calls behind that point.
(function () {
  "use strict";
  if (!window.uPlot) return;
  var holder = document.getElementById("chart-data");
  if (!holder) return;
  var data = JSON.parse(holder.textContent);
  var plots = {};
  var thin = "\u2009";
  // With a legend of two lines, as pages.css gives to each, so that the time axes of charts side by side are at one height.
  var HEIGHT = 180;

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function digits(value) {
    return value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  }
  function duration(us) {
    if (us == null) return "–";
    if (us < 999.5) return Math.round(us) + thin + "µs";
    if (us < 999500) return digits(us / 1e3) + thin + "ms";
    return digits(us / 1e6) + thin + "s";
  }
  function usd(nano) {
    if (nano == null) return "–";
    var value = nano / 1e9;
    var places = value === 0 || value >= 1 ? 2 : value >= 0.01 ? 4 : 6;
    return "$" + value.toFixed(places);
  }
  function count(number) {
    return number == null ? "–" : String(number).replace(/\B(?=(\d{3})+$)/g, thin);
  }
  // On an axis all marks share their places, and trailing zeros that no mark needs are left away.
  function usdAxis(_, marks) {
    var places = 2;
    marks.forEach(function (mark) {
      for (var p = places; p <= 6; p++)
        if (Math.abs(Math.round((mark / 1e9) * Math.pow(10, p)) - (mark / 1e9) * Math.pow(10, p)) < 1e-6) {
          places = Math.max(places, p);
          return;
        }
    });
    return marks.map(function (mark) {
      return mark === 0 ? "$0" : "$" + (mark / 1e9).toFixed(places);
    });
  }
  function durationAxis(_, marks) {
    return marks.map(function (mark) {
      if (mark === 0) return "0";
      return mark < 1e6 ? mark / 1e3 + thin + "ms" : mark / 1e6 + thin + "s";
    });
  }
  function countAxis(_, marks) {
    return marks.map(function (mark) {
      return mark % 1 ? "" : count(mark);
    });
  }

  var bars = uPlot.paths.bars({ size: [0.78, 26], gap: 0, radius: 0.12 });
  function barSeries(label, colour, format) {
    return { label: label, fill: css(colour), stroke: css(colour), width: 0, paths: bars, points: { show: false }, value: format };
  }
  function lineSeries(label, colour, dash) {
    return {
      label: label, stroke: css(colour), width: 1.75, dash: dash, spanGaps: false,
      points: { show: true, filter: lonely, size: 4, fill: css(colour), width: 0 },
      value: function (_, value) { return duration(value); },
    };
  }
  // A value without neighbours draws no line: show it as a point.
  function lonely(plot, index) {
    var values = plot.data[index];
    var found = [];
    values.forEach(function (value, at) {
      if (value != null && values[at - 1] == null && values[at + 1] == null) found.push(at);
    });
    return found;
  }

  var kinds = {
    calls: {
      series: function () {
        return [
          barSeries("Calls", "--accent", function (_, value) { return count(value); }),
          barSeries("Failed", "--bad", function (_, value) { return count(value); }),
        ];
      },
      columns: ["calls", "failed"], axis: countAxis, top: 4,
    },
    latency: {
      series: function () {
        return [
          lineSeries("p50", "--accent"),
          lineSeries("p95", "--gold", [7, 3]),
          lineSeries("First token", "--odd", [2, 3]),
        ];
      },
      columns: ["p50", "p95", "ttft"], axis: durationAxis, top: 1000,
    },
    spend: {
      series: function () {
        return [barSeries("Spend", "--gold", function (_, value) { return usd(value); })];
      },
      columns: ["spend"], axis: usdAxis, top: 1000,
    },
  };

  function columns(kind) {
    return [data.times].concat(
      kind.columns.map(function (name) {
        return data[name];
      })
    );
  }

  function open(plot) {
    var at = plot.cursor.idx;
    if (at == null || !data.calls[at]) return;
    window.location.href = data.href + (data.href.indexOf("?") < 0 ? "?" : "&") + "from=" +
      new Date(data.times[at] * 1000).toISOString().slice(0, 19) + "Z&to=" +
      new Date((data.times[at] + data.bucket) * 1000).toISOString().slice(0, 19) + "Z";
  }

  function draw(name) {
    var element = document.getElementById("chart-" + name);
    var kind = kinds[name];
    if (!element || !kind) return;
    if (plots[name]) plots[name].destroy();
    var axis = {
      stroke: css("--muted"), font: "11.5px Inter, system-ui, sans-serif", labelFont: "11px Inter",
      grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, border: { show: false },
    };
    plots[name] = new uPlot(
      {
        width: element.clientWidth - 16, height: HEIGHT,
        // Half a label of the time axis fits beside the last bucket.
        padding: [8, 18, 0, 0],
        legend: { live: true, markers: { width: 0, fill: function (plot, index) { return plot.series[index].stroke(); } } },
        cursor: { sync: { key: "overview" }, y: false, drag: { x: false, y: false }, points: { size: 6 }, focus: { prox: -1 } },
        scales: {
          x: { time: true, range: function () { return [data.times[0] - data.bucket * 0.6, data.times[data.times.length - 1] + data.bucket * 0.6]; } },
          y: { range: function (_, low, high) { return [0, Math.max(kind.top, (high || 0) * 1.08)]; } },
        },
        axes: [
          Object.assign({}, axis, { grid: { show: false }, size: 26, space: 64, values: timeAxis }),
          Object.assign({}, axis, { size: 58, space: 36, values: kind.axis }),
        ],
        series: [{ value: function (plot, value, index, at) { return at == null ? "" : moment(value); }, label: "" }].concat(kind.series()),
        hooks: {
          ready: [function (plot) { plot.over.addEventListener("click", function () { open(plot); }); rest(plot); }],
          setCursor: [function (plot) { if (plot.cursor.idx == null) rest(plot); }],
        },
      },
      columns(kind),
      element
    );
  }
  var clock = new Intl.DateTimeFormat(navigator.language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  var date = new Intl.DateTimeFormat(navigator.language, { day: "numeric", month: "short" });
  var calendar = new Intl.DateTimeFormat(navigator.language, { weekday: "short", day: "numeric", month: "short" });
  // Midnight carries the date, so that a chart over two days says where one ends.
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
  // Without a pointer the legend shows the last bucket that has something to show.
  function rest(plot) {
    var last = -1;
    plot.data[1].forEach(function (number, index) { if (number) last = index; });
    if (last >= 0) plot.setLegend({ idx: last });
  }

  function drawAll() {
    Object.keys(kinds).forEach(draw);
  }
  drawAll();
  document.addEventListener("console:scheme", drawAll);
  var waiting;
  window.addEventListener("resize", function () {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(function () {
      Object.keys(plots).forEach(function (name) {
        var element = document.getElementById("chart-" + name);
        plots[name].setSize({ width: element.clientWidth - 16, height: HEIGHT });
      });
    }, 120);
  });

  window.ConsoleCharts = {
    update: function (fresh, spoken) {
      data = fresh;
      Object.keys(plots).forEach(function (name) {
        plots[name].setData(columns(kinds[name]));
        if (plots[name].cursor.idx == null) rest(plots[name]);
        if (spoken && spoken[name]) document.getElementById("chart-" + name).setAttribute("aria-label", spoken[name]);
      });
    },
  };
})();
