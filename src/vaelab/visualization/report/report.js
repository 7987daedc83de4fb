"use strict";
// The charts, tables and images of the report. A chart reads the JSON beside it, and sets strings as text, not HTML.
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  /** An element with attributes, and children that are elements or text. */
  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "g", "rect", "line", "text", "path"].includes(tag);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function swatch(colour) {
    const element = make("span", { class: "swatch" });
    element.style.background = colour;
    return element;
  }

  /** Toggle buttons for `items`, which have a name, a colour and `on`. */
  function chips(items, changed) {
    const row = make("div", { class: "chips" });
    for (const item of items) {
      const button = make("button", { type: "button", "aria-pressed": item.on });
      if (item.colour) button.append(swatch(item.colour));
      button.append(item.name);
      button.addEventListener("click", () => {
        item.on = !item.on;
        button.setAttribute("aria-pressed", item.on);
        changed(item);
      });
      row.append(button);
    }
    return row;
  }

  function choice(label, names, chosen, changed) {
    const select = make("select", { "aria-label": label });
    names.forEach((name, i) => select.append(make("option", { value: i }, name)));
    select.value = chosen;
    select.addEventListener("change", () => changed(Number(select.value)));
    return make("label", {}, label, select);
  }

  function resetButton(reset) {
    const button = make("button", { type: "button", class: "reset" }, "Reset view");
    button.addEventListener("click", reset);
    return button;
  }

  /** A number with about four digits, or with the digits that show a difference of `span`. */
  function format(value, span) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const size = span || Math.abs(value) / 1000 || 1;
    if (value !== 0 && (Math.abs(value) >= 1e7 || size < 1e-6)) return value.toExponential(2);
    const digits = Math.max(0, Math.min(6, Math.ceil(-Math.log10(size) - 1e-9)));
    return (value + 0).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace(/^-(0(\.0+)?)$/, "$1");
  }

  /** Labels of the ticks of an axis, with as many digits as they need. */
  function tickLabels(marks) {
    const need = (value) => [0, 1, 2, 3, 4, 5, 6].find((n) => Math.abs(value * 10 ** n - Math.round(value * 10 ** n)) < 1e-6) ?? 6;
    const digits = Math.max(0, ...marks.map(need));
    return marks.map((value) => format(value, 10 ** -digits));
  }

  /** About `count` round numbers from `low` to `high`; a logarithmic scale prefers powers of ten. */
  function ticks(low, high, count, logarithmic) {
    if (!(high > low)) return [low];
    if (logarithmic) {
      const sign = low < 0 && high <= 0 ? -1 : 1;
      const [from, to] = sign < 0 ? [-high, -low] : [low, high];
      if (from > 0) {
        for (const digits of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]]) {
          const found = [];
          for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++) {
            for (const digit of digits) {
              const value = digit * 10 ** power;
              if (value >= from && value <= to) found.push(sign * value);
            }
          }
          if (found.length >= Math.min(4, count)) return sign < 0 ? found.reverse() : found;
        }
      }
    }
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
    return found;
  }

  /** Calls `draw` when the width of the element or the colour scheme changes. */
  function onChange(element, draw) {
    let width = 0;
    new ResizeObserver(() => {
      if (element.clientWidth && element.clientWidth !== width) {
        width = element.clientWidth;
        draw();
      }
    }).observe(element);
    dark.addEventListener("change", () => width && draw());
  }

  /** Shows a tooltip beside a position, inside its stage. */
  function showTip(tip, stage, x, y) {
    tip.hidden = false;
    const left = x + 18 + tip.offsetWidth > stage.clientWidth ? x - 18 - tip.offsetWidth : x + 18;
    tip.style.left = `${Math.max(0, Math.min(left, stage.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, stage.clientHeight - tip.offsetHeight))}px`;
  }

  // Curves: a panel of uPlot for each term. All panels share the range of the x axis.

  function curves(stage, data) {
    const state = { logarithmic: false, window: null, plots: [] };
    const panels = data.panels.map((panel) => ({ ...panel, name: panel.title, on: !panel.hidden }));
    const series = new Map();
    for (const panel of panels) {
      for (const { name, colour } of panel.series) if (!series.has(name)) series.set(name, { name, colour, on: true });
    }
    const grid = make("div", { class: "panels" });
    const controls = make("div", { class: "controls" });
    const scale = choice("Scale", ["linear", "logarithmic"], 0, (chosen) => {
      state.logarithmic = chosen === 1;
      draw();
    });
    const reset = resetButton(() => zoom(null));
    if (panels.length > 1) controls.append(chips(panels, draw));
    if (series.size > 1) controls.append(chips([...series.values()], draw));
    controls.append(scale, reset);
    stage.append(controls, grid);

    function zoom(window) {
      state.window = window;
      reset.disabled = !window;
      for (const { plot, from, to } of state.plots) {
        plot.setScale("x", window ? { min: window[0], max: window[1] } : { min: from, max: to });
      }
    }

    function draw() {
      for (const { plot } of state.plots) plot.destroy();
      const shown = (panel) => panel.series.filter(({ name }) => series.get(name).on);
      const visible = panels.filter((panel) => panel.on && shown(panel).length);
      const boxes = visible.map((panel) => make("div", { class: "panel", "data-term": panel.term }));
      grid.replaceChildren(...boxes); // before the plots, because the boxes share the width
      state.plots = visible.map((panel, i) => drawPanel(boxes[i], panel, shown(panel)));
      zoom(state.window);
    }

    function drawPanel(box, panel, shown) {
      const unit = make("span", {}, panel.unit ? ` ${panel.unit}` : "");
      const readout = make("div", { class: "readout" });
      const holder = make("div");
      box.append(make("h4", {}, panel.title, unit), readout, holder);
      const table = uPlot.join(shown.map(({ x, y }) => [x, y]));
      const values = shown.flatMap(({ y }) => y);
      const logarithmic = state.logarithmic && (values.every((v) => v > 0) || values.every((v) => v < 0));
      const [from, to] = [Math.min(0, table[0][0]), table[0].at(-1)];
      // The y axis leaves out extreme first values, which would flatten the rest of the curve.
      const sorted = [...values].sort((a, b) => a - b);
      const quantile = (part) => sorted[Math.round(part * (sorted.length - 1))];
      const trimmed = (low, high) => {
        if (state.logarithmic || sorted.length < 20) return [low, high];
        const [bottom, top, typicalLow, typicalHigh] = [quantile(0), quantile(1), quantile(0.1), quantile(0.9)];
        if (top - bottom > 4 * (typicalHigh - bottom) && typicalHigh > bottom) return [low, bottom + 2 * (typicalHigh - bottom)];
        if (top - bottom > 4 * (top - typicalLow) && top > typicalLow) return [top - 2 * (top - typicalLow), high];
        return [low, high];
      };
      const range = (_, low, high) => {
        if (low === null || low === undefined) return [0, 1];
        [low, high] = state.window ? [low, high] : trimmed(low, high);
        if (logarithmic) {
          const pad = (Math.max(Math.abs(low), Math.abs(high)) / Math.min(Math.abs(low), Math.abs(high))) ** 0.05 || 1.05;
          return low > 0 ? [low / pad, high * pad] : [low * pad, high / pad];
        }
        const pad = (high - low || Math.abs(high) || 1) * 0.06;
        return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
      };
      const axis = (space, name, size) => ({
        stroke: () => css("--dim"),
        grid: { stroke: () => css("--line"), width: 1 },
        ticks: { show: false },
        font: "12px system-ui, sans-serif",
        size,
        splits: (u, _, low, high) => ticks(low, high, Math.max(2, Math.floor((name === "x" ? u.width : u.height) / space)), name === "y" && logarithmic),
        filter: (_, splits) => splits,
        values: (_, splits) => tickLabels(splits),
      });
      const few = shown.every(({ x }) => x.length <= 30);
      const options = {
        width: Math.max(220, holder.clientWidth),
        height: 240,
        legend: { show: false },
        scales: {
          x: { time: false, auto: false, min: from, max: to, range: (_, low, high) => [low, high] },
          y: { distr: logarithmic ? (values[0] > 0 ? 3 : 4) : 1, range },
        },
        axes: [
          { ...axis(90, "x", 30), label: "steps", labelSize: 16, labelGap: 0, labelFont: "12px system-ui, sans-serif" },
          axis(46, "y", 56),
        ],
        cursor: {
          sync: { key: data.key, scales: ["x", null] },
          drag: { x: true, y: false, setScale: false },
          points: { size: 7 },
          y: false,
          bind: { dblclick: () => () => zoom(null) },
          // A curve has values at its own steps only: show the nearest one.
          dataIdx: (u, i, index) => {
            if (i === 0) return index;
            const column = u.data[i];
            for (let away = 0; away < column.length; away++) {
              for (const near of [index - away, index + away]) {
                if (column[near] !== null && column[near] !== undefined) return near;
              }
            }
            return null;
          },
        },
        series: [{}, ...shown.map(({ name, colour }) => ({
          label: name, stroke: colour, width: 1.8, spanGaps: true, points: { show: few, size: 5, fill: colour, stroke: colour },
        }))],
        hooks: {
          setSelect: [(u) => {
            if (u.select.width > 4) zoom([u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")]);
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          }],
          setCursor: [(u) => showValues(u)],
        },
      };
      const plot = new uPlot(options, table, holder);
      forwardTouches(plot);
      showValues(plot);

      /** Shows the values below the pointer, or the last values. */
      function showValues(u) {
        const at = u.cursor.left >= 0 && u.cursor.idxs ? u.cursor.idxs : null;
        const index = (i) => (at ? at[i] : u.data[i].findLastIndex((value) => value !== null && value !== undefined));
        const step = u.data[0][at ? at[0] ?? 0 : u.data[0].length - 1];
        const epoch = data.stepsPerEpoch ? `, epoch ${format(step / data.stepsPerEpoch, step % data.stepsPerEpoch ? 0.1 : 1)}` : "";
        readout.replaceChildren(make("span", {}, `${at ? "" : "last: "}step ${format(step, 1)}${epoch}`));
        shown.forEach(({ name, colour }, i) => {
          const value = index(i + 1);
          readout.append(make("span", {}, swatch(colour), `${name} `, make("b", {}, format(u.data[i + 1][value]))));
        });
      }

      return { plot, from, to };
    }

    /** Sends touches as mouse events, because uPlot handles only those. */
    function forwardTouches(plot) {
      const send = (type, event) => {
        const shared = { clientX: event.clientX, clientY: event.clientY, movementX: 1, bubbles: true, button: 0 };
        (type === "mouseup" ? document : plot.over).dispatchEvent(new MouseEvent(type, shared));
      };
      const on = (type, ...sent) => plot.over.addEventListener(type, (event) => {
        if (event.pointerType === "touch") sent.forEach((each) => send(each, event));
      });
      on("pointerdown", "mousemove", "mousedown");
      on("pointermove", "mousemove");
      on("pointerup", "mouseup");
      on("pointercancel", "mouseup");
    }

    onChange(grid, draw);
  }

  // A scatter plot of latent codes, with the image of each code.

  const RAMP = ["#5a4a96", "#31688e", "#21918c", "#5ec962", "#fde725"].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));

  function ramp(part) {
    const place = Math.max(0, Math.min(1, part)) * (RAMP.length - 1);
    const i = Math.min(RAMP.length - 2, Math.floor(place));
    const mixed = RAMP[i].map((value, k) => Math.round(value + (RAMP[i + 1][k] - value) * (place - i)));
    return `rgb(${mixed})`;
  }

  const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

  function scatter(stage, data) {
    const count = data.numbers.length;
    const state = { x: 0, y: Math.min(1, data.axes.length - 1), colour: 0, view: null, hidden: new Set(), at: -1 };
    const canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": "Scatter plot of latent codes" });
    const tip = make("div", { class: "tip", role: "status" });
    const selection = make("div", { class: "selection" });
    const box = make("div", { class: "stage" }, canvas, selection, tip);
    const legend = make("div", { class: "legend" });
    const controls = make("div", { class: "controls" });
    tip.hidden = selection.hidden = true;
    const names = data.axes.map(({ name }) => name);
    const changeView = (change) => (chosen) => {
      Object.assign(state, change(chosen), { view: null });
      draw();
    };
    const reset = resetButton(changeView(() => ({})));
    controls.append(
      choice("x axis", names, state.x, changeView((x) => ({ x }))),
      choice("y axis", names, state.y, changeView((y) => ({ y }))),
      choice("Colour", data.colours.map(({ name }) => name), 0, (colour) => {
        Object.assign(state, { colour });
        state.hidden.clear();
        drawLegend();
        draw();
      }),
      reset,
    );
    stage.append(controls, make("div", { class: "cloud" }, box, legend));
    const sheets = [data.images, data.reconstructions].map((address) => {
      const image = new Image();
      image.src = address;
      return image;
    });
    // Points are painted in a random order, because the last class would hide the others.
    const order = Array.from({ length: count }, (_, i) => i);
    let seed = 1;
    for (let i = count - 1; i > 0; i--) {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      const j = seed % (i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    let place = null;

    function colourOf() {
      const { classes, values, palette } = data.colours[state.colour];
      if (classes) {
        const many = classes.length > palette.length;
        return (i) => (many ? `hsl(${(360 * values[i]) / classes.length} 65% 50%)` : palette[values[i]]);
      }
      const sorted = [...values].sort((a, b) => a - b);
      const [low, high] = [sorted[Math.floor(0.01 * count)], sorted[Math.ceil(0.99 * (count - 1))]];
      return (i) => ramp(high > low ? (values[i] - low) / (high - low) : 0.5);
    }

    const isShown = (i) => !state.hidden.size || !state.hidden.has(data.colours[state.colour].values[i]);

    function drawLegend() {
      const { name, classes, values, palette } = data.colours[state.colour];
      if (classes && classes.length > 60) {
        legend.replaceChildren(make("span", { class: "ramp" }, make("b", {}, `${classes.length.toLocaleString("en")} classes`)));
        return;
      }
      if (classes) {
        const items = classes.map((each, value) => ({
          name: each, value, on: true, colour: classes.length > palette.length ? `hsl(${(360 * value) / classes.length} 65% 50%)` : palette[value],
        }));
        legend.replaceChildren(chips(items, ({ value, on }) => {
          if (on) state.hidden.delete(value);
          else state.hidden.add(value);
          draw();
        }));
        return;
      }
      const sorted = [...values].sort((a, b) => a - b);
      const bar = make("canvas", { width: 140, height: 10 });
      const pen = bar.getContext("2d");
      for (let x = 0; x < 140; x++) {
        pen.fillStyle = ramp(x / 139);
        pen.fillRect(x, 0, 1, 10);
      }
      bar.style.width = "140px";
      const [low, high] = [sorted[Math.floor(0.01 * count)], sorted[Math.ceil(0.99 * (count - 1))]];
      legend.replaceChildren(make("span", { class: "ramp" }, make("b", {}, name), format(low, (high - low) / 100), bar, format(high, (high - low) / 100)));
    }

    /** The visible ranges. Two axes of the same kind have the same scale. */
    function ranges(width, height) {
      const all = [state.x, state.y].map((axis) => {
        const values = data.axes[axis].values;
        const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
        const pad = (high - low || 1) * 0.05;
        return [low - pad, high + pad];
      });
      const kind = (axis) => data.axes[axis].name.replace(/\d.*/, "");
      if (kind(state.x) === kind(state.y)) {
        const sizes = [width, height];
        const unit = Math.min(...all.map(([low, high], i) => sizes[i] / (high - low)));
        return all.map(([low, high], i) => {
          const half = sizes[i] / unit / 2;
          return [(low + high) / 2 - half, (low + high) / 2 + half];
        });
      }
      return all;
    }

    function draw() {
      const width = box.clientWidth;
      const height = Math.round(Math.max(320, Math.min(620, 0.86 * width)));
      const ratio = window.devicePixelRatio || 1;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      canvas.style.height = `${height}px`;
      const margin = { left: 44, right: 6, top: 24, bottom: 40 };
      const [w, h] = [width - margin.left - margin.right, height - margin.top - margin.bottom];
      const view = state.view || ranges(w, h);
      const [[x0, x1], [y0, y1]] = view;
      const right = (value) => margin.left + ((value - x0) / (x1 - x0)) * w;
      const up = (value) => margin.top + h - ((value - y0) / (y1 - y0)) * h;
      place = {
        right, up, margin, w, h, view,
        x: (pixel) => x0 + ((pixel - margin.left) / w) * (x1 - x0),
        y: (pixel) => y0 + ((margin.top + h - pixel) / h) * (y1 - y0),
      };
      reset.disabled = !state.view;
      const pen = canvas.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      pen.font = "12px system-ui, sans-serif";
      pen.lineWidth = 1;
      pen.strokeStyle = css("--line");
      pen.fillStyle = css("--dim");
      const xs = ticks(x0, x1, Math.max(2, Math.floor(w / 110)));
      const ys = ticks(y0, y1, Math.max(2, Math.floor(h / 70)));
      pen.beginPath();
      for (const value of xs) {
        pen.moveTo(right(value), margin.top);
        pen.lineTo(right(value), margin.top + h);
      }
      for (const value of ys) {
        pen.moveTo(margin.left, up(value));
        pen.lineTo(margin.left + w, up(value));
      }
      pen.stroke();
      pen.textAlign = "center";
      tickLabels(xs).forEach((text, i) => pen.fillText(text, right(xs[i]), margin.top + h + 16));
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      tickLabels(ys).forEach((text, i) => pen.fillText(text, margin.left - 6, up(ys[i])));
      pen.textBaseline = "alphabetic";
      pen.fillText(`${names[state.x]} →`, margin.left + w, margin.top + h + 34);
      pen.textAlign = "left";
      pen.fillText(`↑ ${names[state.y]}`, 0, 12);
      pen.save();
      pen.beginPath();
      pen.rect(margin.left, margin.top, w, h);
      pen.clip();
      const colour = colourOf();
      const [px, py] = [data.axes[state.x].values, data.axes[state.y].values];
      const radius = Math.max(2, Math.min(5, Math.sqrt((w * h) / count) / 5));
      pen.globalAlpha = 0.8;
      for (const i of order) {
        if (!isShown(i)) continue;
        pen.fillStyle = colour(i);
        pen.beginPath();
        pen.arc(right(px[i]), up(py[i]), radius, 0, 2 * Math.PI);
        pen.fill();
      }
      pen.globalAlpha = 1;
      labelClasses(pen, px, py);
      if (state.at >= 0 && isShown(state.at)) {
        pen.strokeStyle = css("--ink");
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(right(px[state.at]), up(py[state.at]), radius + 3, 0, 2 * Math.PI);
        pen.stroke();
      }
      pen.restore();
    }

    /** Labels at the medians of the classes, because ten colours are hard to distinguish. */
    function labelClasses(pen, px, py) {
      const { classes, values, palette } = data.colours[state.colour];
      if (!classes || classes.length > palette.length) return;
      pen.font = "600 14px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.lineWidth = 4;
      pen.lineJoin = "round";
      classes.forEach((name, value) => {
        const own = order.filter((i) => values[i] === value);
        if (!own.length || state.hidden.has(value)) return;
        const [x, y] = [place.right(median(own.map((i) => px[i]))), place.up(median(own.map((i) => py[i])))];
        pen.strokeStyle = css("--paper");
        pen.strokeText(name, x, y);
        pen.fillStyle = css("--ink");
        pen.fillText(name, x, y);
      });
      pen.textBaseline = "alphabetic";
    }

    function nearest(x, y) {
      const [px, py] = [data.axes[state.x].values, data.axes[state.y].values];
      let [found, best] = [-1, 24 ** 2];
      for (let i = 0; i < count; i++) {
        const distance = (place.right(px[i]) - x) ** 2 + (place.up(py[i]) - y) ** 2;
        if (distance < best && isShown(i)) [found, best] = [i, distance];
      }
      return found;
    }

    function point(x, y) {
      const found = nearest(x, y);
      if (found === state.at) return;
      state.at = found;
      draw();
      showImages(found);
    }

    function showImages(i) {
      if (i < 0) {
        tip.hidden = true;
        return;
      }
      const [height, width] = data.tile;
      const size = Math.max(1, Math.round(84 / Math.max(height, width)));
      const pair = make("div", { class: "pair" });
      for (const sheet of sheets) {
        const tile = make("canvas", { width, height });
        tile.style.width = `${width * size}px`;
        tile.style.height = `${height * size}px`;
        const [left, top] = [(i % data.columns) * width, Math.floor(i / data.columns) * height];
        if (sheet.complete) tile.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, width, height);
        pair.append(tile);
      }
      const classes = data.colours[0].classes;
      const about = [`test image ${data.numbers[i].toLocaleString("en")}${classes ? `, class ${classes[data.colours[0].values[i]]}` : ""}`];
      const { name, values } = data.colours[state.colour];
      if (state.colour && name !== "reconstruction error") about.push(`${name} ${format(values[i])}`);
      about.push(`mean squared error ${data.errors[i].toPrecision(3)}`);
      tip.replaceChildren(pair, make("div", { class: "dim" }, "image, reconstruction"), ...about.map((line) => make("div", {}, line)));
      const [px, py] = [data.axes[state.x].values, data.axes[state.y].values];
      showTip(tip, box, place.right(px[i]), place.up(py[i]));
    }

    const at = (event) => {
      const area = canvas.getBoundingClientRect();
      return [event.clientX - area.left, event.clientY - area.top];
    };
    const fingers = new Map();
    let start = null;
    let pinch = null;
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, at(event));
      if (event.pointerType === "mouse") {
        start = at(event);
        canvas.setPointerCapture(event.pointerId);
      } else if (fingers.size === 2) {
        pinch = { view: place.view, from: [...fingers.values()] };
      } else point(...at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (fingers.has(event.pointerId)) fingers.set(event.pointerId, at(event));
      if (pinch && fingers.size === 2) {
        zoomByPinch([...fingers.values()]);
      } else if (start) {
        const [x, y] = at(event);
        selection.hidden = Math.hypot(x - start[0], y - start[1]) < 6;
        Object.assign(selection.style, {
          left: `${Math.min(x, start[0])}px`, top: `${Math.min(y, start[1])}px`,
          width: `${Math.abs(x - start[0])}px`, height: `${Math.abs(y - start[1])}px`,
        });
      } else point(...at(event));
    });
    const release = (event) => {
      fingers.delete(event.pointerId);
      pinch = null;
      if (start && !selection.hidden && event.type === "pointerup") {
        const [x, y] = at(event);
        const pair = (a, b) => [Math.min(a, b), Math.max(a, b)];
        if (Math.abs(x - start[0]) > 6 && Math.abs(y - start[1]) > 6) {
          state.view = [pair(place.x(x), place.x(start[0])), pair(place.y(y), place.y(start[1]))];
          state.at = -1;
          tip.hidden = true;
          draw();
        }
      }
      start = null;
      selection.hidden = true;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !start) point(-1e6, -1e6);
    });
    canvas.addEventListener("dblclick", changeView(() => ({ at: -1 })));

    /** Zooms by two fingers: the points below them stay there, as far as one factor for both axes allows. */
    function zoomByPinch([a, b]) {
      const [c, d] = pinch.from;
      const factor = Math.hypot(c[0] - d[0], c[1] - d[1]) / Math.max(20, Math.hypot(a[0] - b[0], a[1] - b[1]));
      const { margin, w, h } = place;
      state.view = pinch.view.map(([low, high], axis) => {
        const size = axis ? h : w;
        const part = (one, other) => {
          const pixel = (one[axis] + other[axis]) / 2;
          return axis ? (margin.top + h - pixel) / size : (pixel - margin.left) / size;
        };
        const span = (high - low) * factor;
        const from = low + part(c, d) * (high - low) - part(a, b) * span;
        return [from, from + span];
      });
      tip.hidden = true;
      state.at = -1;
      draw();
    }

    drawLegend();
    onChange(box, () => {
      tip.hidden = true;
      draw();
    });
  }

  // Bars and histograms, as SVG.

  /** An SVG with axes. Returns it with its margins, its inner size and the scale of the y axis. */
  function axes(stage, height, [low, high], xName, yName, marks) {
    const margin = { left: 46, right: 4, top: 22, bottom: 38 };
    const width = stage.clientWidth;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    const [w, h] = [width - margin.left - margin.right, height - margin.top - margin.bottom];
    const up = (value) => margin.top + h - ((value - low) / (high - low)) * h;
    const rows = ticks(low, high, Math.max(2, Math.floor(h / 46)));
    tickLabels(rows).forEach((text, i) => {
      const y = up(rows[i]);
      svg.append(make("line", { class: "grid", x1: margin.left, x2: margin.left + w, y1: y, y2: y }));
      svg.append(make("text", { x: margin.left - 6, y: y + 4, "text-anchor": "end" }, text));
    });
    for (const [x, text] of marks(w)) {
      svg.append(make("text", { x: margin.left + x, y: margin.top + h + 16, "text-anchor": "middle" }, text));
    }
    svg.append(make("text", { x: margin.left + w, y: height - 4, "text-anchor": "end" }, xName));
    svg.append(make("text", { x: 0, y: 12 }, yName));
    return { svg, margin, w, h, up };
  }

  /** Shows a tooltip with the lines `describe(i)` at the bar i below the pointer. */
  function addTooltip(stage, svg, tip, width, offset, count, describe) {
    const move = (event) => {
      const x = event.clientX - svg.getBoundingClientRect().left - offset;
      const i = Math.max(0, Math.min(count - 1, Math.floor((x / width) * count)));
      tip.replaceChildren(...describe(i).map((line) => make("div", {}, line)));
      showTip(tip, stage, offset + ((i + 0.5) * width) / count, event.clientY - svg.getBoundingClientRect().top);
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", () => (tip.hidden = true));
  }

  function bars(stage, data) {
    const tip = make("div", { class: "tip" });
    onChange(stage, () => {
      const count = data.bars.length;
      const top = data.bars.reduce((most, { value }) => Math.max(most, value), 0) || 1;
      const labels = (w) => {
        const every = Math.max(1, Math.ceil((count * 22) / w));
        return count > 40 && every > 1 ? [] : data.bars.flatMap(({ name }, i) => (i % every ? [] : [[((i + 0.5) * w) / count, name]]));
      };
      const { svg, margin, w, h, up } = axes(stage, 240, [0, top * 1.04], data.x, data.y, labels);
      const thick = Math.min(44, Math.max(0.6, (w / count) * 0.78));
      data.bars.forEach(({ value, strong, text }, i) => {
        const x = margin.left + ((i + 0.5) * w) / count - thick / 2;
        const y = up(Math.max(0, value));
        const bar = make("rect", { x, y, width: thick, height: Math.max(0.5, margin.top + h - y), fill: strong ? "#3f90da" : "#94a4a2" });
        bar.setAttribute("aria-label", text);
        svg.append(bar);
      });
      tip.hidden = true;
      stage.replaceChildren(svg, tip);
      addTooltip(stage, svg, tip, w, margin.left, count, (i) => [data.bars[i].text, data.bars[i].strong ? "active" : "not active"]);
    });
  }

  function histogram(stage, data) {
    const tip = make("div", { class: "tip" });
    onChange(stage, () => {
      const count = data.series[0].values.length;
      const top = Math.max(...data.series.flatMap(({ values }) => values)) || 1;
      const high = data.low + data.width * count;
      const labels = (w) => {
        const marks = ticks(data.low, high, Math.max(2, Math.floor(w / 90)));
        return tickLabels(marks).map((text, i) => [((marks[i] - data.low) / (high - data.low)) * w, text]);
      };
      const { svg, margin, w, h, up } = axes(stage, 240, [0, top * 1.04], data.x, data.y, labels);
      for (const { values, colour } of data.series) {
        values.forEach((value, i) => {
          if (value) svg.append(make("rect", { x: margin.left + (i * w) / count, y: up(value), width: w / count, height: margin.top + h - up(value), fill: colour, "fill-opacity": 0.6 }));
        });
      }
      tip.hidden = true;
      const names = make("div", { class: "controls" });
      for (const { name, colour } of data.series) names.append(make("span", {}, swatch(colour), ` ${name}`));
      stage.replaceChildren(...(data.series.length > 1 ? [names] : []), svg, tip);
      addTooltip(stage, svg, tip, w, margin.left, count, (i) => [
        `${format(data.low + i * data.width, data.width)} to ${format(data.low + (i + 1) * data.width, data.width)}`,
        ...data.series.map(({ name, values }) => `${name}: ${(100 * values[i]).toFixed(1)} %`),
      ]);
    });
  }

  const kinds = { curves, scatter, bars, histogram };
  document.querySelectorAll("[data-plot]").forEach((figure, i) => {
    const stage = figure.querySelector(".stage");
    const data = JSON.parse(figure.querySelector("script").textContent);
    kinds[figure.dataset.plot](stage, { ...data, key: `chart ${i}` });
  });

  // Tables: a click on a heading sorts the rows, numbers by their value and empty cells last.

  for (const table of document.querySelectorAll("[data-sortable]")) {
    const body = table.tBodies[0];
    table.querySelectorAll("th button").forEach((button, column) => {
      button.addEventListener("click", () => {
        const heading = button.closest("th");
        const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        table.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", direction);
        const key = (row) => {
          const cell = row.cells[column];
          return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim();
        };
        const rows = [...body.rows].map((row) => [key(row), row]);
        rows.sort(([a], [b]) => {
          if (a === "" || b === "") return (a === "") - (b === "");
          const both = typeof a === "number" && typeof b === "number";
          const less = both ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
          return direction === "ascending" ? less : -less;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // Images: pixelated if they are enlarged, smooth if they are shrunk. A click shows the full size.

  function setRendering() {
    for (const image of document.querySelectorAll(".picture img")) {
      image.classList.toggle("crisp", image.clientWidth * window.devicePixelRatio >= image.naturalWidth * 0.99);
    }
  }
  window.addEventListener("load", setRendering);
  window.addEventListener("resize", setRendering);
  const dialog = document.querySelector("dialog");
  for (const button of document.querySelectorAll(".picture")) {
    button.addEventListener("click", () => {
      const image = button.querySelector("img").cloneNode();
      image.classList.add("crisp");
      dialog.replaceChildren(image);
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", () => dialog.close());

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        window.getSelection().selectAllChildren(code); // the page may not write to the clipboard: the user copies the selection
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
})();
