// The last hour, drawn by uPlot; each picture says in words what it shows.

import { seconds } from "./figures.js";

const FIVE_MINUTES = 300;
const SUMMARY_MS = 60_000;
const number = new Intl.NumberFormat(undefined);
const at = (id) => document.getElementById(id);

const READY = [
  ["callbacks", "Callbacks", "--queue-1"],
  ["unsigned_users", "Unsigned", "--queue-2"],
  ["outstanding_requests", "Outstanding requests", "--queue-3"],
];

const KINDS = [
  {
    id: "ready",
    series: READY.map(([, label, colour]) => ({ label, colour })),
    data: (samples) => [
      samples.map((it) => it.at),
      ...READY.map(([name]) => samples.map((it) => it.ready[name] ?? null)),
    ],
    text: (value) => number.format(value),
    least: 4,
  },
  {
    id: "calls",
    series: [
      { label: "Calls", colour: "--queue-2", bars: 0.8 },
      { label: "Conversions", colour: "--queue-3", bars: 0.4 },
    ],
    data: everyFiveMinutes,
    text: (value) => number.format(value),
    least: 4,
  },
  {
    id: "latency",
    series: [
      { label: "Half of changes within", colour: "--queue-2" },
      { label: "99 % within", colour: "--queue-1" },
    ],
    data: (samples) => [
      samples.map((it) => it.at), samples.map((it) => it.p50), samples.map((it) => it.p99),
    ],
    text: seconds,
    least: 0.1,
  },
];

// Counts of the day become counts of five minutes; at midnight the day's count begins anew.
function everyFiveMinutes(samples) {
  const slots = new Map();
  for (let i = 1; i < samples.length; i++) {
    const slot = Math.floor(samples[i].at / FIVE_MINUTES) * FIVE_MINUTES;
    const sums = slots.get(slot) ?? { calls: 0, conversions: 0 };
    for (const name of ["calls", "conversions"]) {
      const [before, now] = [samples[i - 1][name], samples[i][name]];
      if (before !== null && now !== null) sums[name] += now >= before ? now - before : now;
    }
    slots.set(slot, sums);
  }
  // A slot that begins before the first point would look like a lull.
  const times = [...slots.keys()].filter((it) => it >= samples[0].at).sort((a, b) => a - b);
  return [
    times.map((it) => it + FIVE_MINUTES / 2),
    times.map((it) => slots.get(it).calls),
    times.map((it) => slots.get(it).conversions),
  ];
}

export class Charts {
  #plots = new Map();
  #samples = [];
  #summarised = -Infinity;

  constructor() {
    for (const kind of KINDS) {
      const legend = at(`${kind.id}-legend`);
      legend.replaceChildren(...kind.series.map(({ label, colour }) => {
        const item = document.createElement("li");
        item.textContent = label;
        item.className = colour.slice(2);
        return item;
      }));
      const resized = new ResizeObserver(() => this.#fit(kind));
      resized.observe(at(`${kind.id}-chart`));
    }
  }

  show(samples) {
    this.#samples = samples;
    const isTime = performance.now() - this.#summarised > SUMMARY_MS;
    for (const kind of KINDS) {
      const data = kind.data(samples);
      this.#draw(kind, data);
      if (isTime) at(`${kind.id}-chart`).setAttribute("aria-label", summary(kind, data));
    }
    if (isTime && samples.length > 1) this.#summarised = performance.now();
  }

  redraw() {
    for (const plot of this.#plots.values()) plot.destroy();
    this.#plots.clear();
    for (const kind of KINDS) this.#draw(kind, kind.data(this.#samples));
  }

  #draw(kind, data) {
    const box = at(`${kind.id}-chart`);
    const isEmpty = this.#samples.length < 2 || !data.slice(1).flat().some((it) => it !== null);
    box.classList.toggle("nothing", isEmpty);
    if (isEmpty) return;
    const plot = this.#plots.get(kind.id);
    if (plot) plot.setData(data);
    else this.#plots.set(kind.id, new uPlot(options(kind, box), data, box));
  }

  #fit(kind) {
    const box = at(`${kind.id}-chart`);
    if (box.clientWidth > 0) {
      this.#plots.get(kind.id)?.setSize({ width: box.clientWidth, height: box.clientHeight });
    }
  }
}

function options(kind, box) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = `13px ${style.getPropertyValue("--font")}`;
  const axis = {
    stroke: colour("--quiet"), font, ticks: { show: false }, gap: 6,
    grid: { stroke: colour("--line"), width: 1 },
  };
  return {
    width: box.clientWidth,
    height: box.clientHeight,
    legend: { show: false },
    cursor: { show: false },
    padding: [10, 8, 0, 0],
    scales: {
      x: { range: () => hour() },
      y: { range: (_, __, most) => [0, Math.max(most * 1.15, kind.least)] },
    },
    axes: [
      { ...axis, grid: { show: false }, values: (_, times) => times.map(clock), space: 70 },
      { ...axis, size: 58, space: 36, values: (_, values) => values.map(kind.text) },
    ],
    series: [{}, ...kind.series.map((it) => line(it, colour))],
  };
}

function line({ colour: name, bars }, colour) {
  const stroke = colour(name);
  if (!bars) return { stroke, width: 2.5, points: { show: false }, spanGaps: false };
  const paths = uPlot.paths.bars({ size: [bars, 60] });
  return { stroke, fill: stroke, width: 0, points: { show: false }, paths };
}

function hour() {
  const now = Date.now() / 1000;
  return [now - 3600, now];
}

function clock(time) {
  const it = new Date(time * 1000);
  return `${String(it.getHours()).padStart(2, "0")}:${String(it.getMinutes()).padStart(2, "0")}`;
}

function summary(kind, data) {
  const parts = kind.series.map(({ label }, index) => {
    const values = data[index + 1].filter((it) => it !== null);
    if (values.length === 0) return `${label}: nothing`;
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return `${label}: ${kind.text(values.at(-1))} now, ` +
      `between ${kind.text(least)} and ${kind.text(most)} over the last hour`;
  });
  return parts.join(". ");
}
