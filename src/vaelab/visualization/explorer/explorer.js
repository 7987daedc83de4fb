// The page: one latent vector, tools to change it, and its image.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const decoder = new Decoder(data.graph, floats(data.weights));
  const [channels, height, width] = decoder.shape;
  const D = data.latentDim;
  const points = { ...data.points, codes: floats(data.points.codes) };
  const prior = { ...data.prior, draws: floats(data.prior.draws) };
  const centre = Float32Array.from(prior.centre ?? data.plane.mean);

  const state = {
    z: Float32Array.from(centre),
    y: data.conditional ? oneHot(0) : null, // weights of the classes for the decoder
    z0: Float32Array.from(centre), // the latent that attributes are added to
    amounts: [], // of each attribute
    ends: [null, null], // the two images of the interpolation
    picking: null, // which of the two the user is choosing on the map
    seed: 0,
    temperature: 1,
    onlyClass: null, // the only class on the map, if the user chose one
    layers: { points: points.count > 0, decoded: false, prior: points.count === 0 },
  };

  // -- helpers ------------------------------------------------------------------------------------------------------

  function $(id) { return document.getElementById(id); }

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && (value !== false || name.startsWith("aria"))) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function floats(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new Float32Array(bytes.buffer);
  }

  function oneHot(label) {
    return Float32Array.from(data.classes, (_, i) => (i === label ? 1 : 0));
  }

  const code = (i) => points.codes.subarray(i * D, (i + 1) * D);
  const mixed = (a, b, t) => Float32Array.from(a, (value, i) => value * (1 - t) + b[i] * t);
  const colourOf = (label) => data.palette[label % data.palette.length];
  const nameOf = (i) => `test image ${points.numbers[i]}` + (data.classes.length > 1 ? ` (${data.classes[points.labels[i]]})` : "");
  const signed = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
  const isFew = data.classes.length > 1 && data.classes.length <= 20; // few enough classes for a legend

  // -- images -------------------------------------------------------------------------------------------------------

  const pixels = new ImageData(width, height);
  pixels.data.fill(255);
  let milliseconds = 0; // of a decoding, as a moving average

  function paint(canvas, z, y = state.y) {
    const start = performance.now();
    const image = decoder.decode(z, y);
    const taken = performance.now() - start;
    milliseconds = milliseconds ? 0.9 * milliseconds + 0.1 * taken : taken;
    const plane = width * height, green = channels === 3 ? plane : 0;
    for (let i = 0; i < plane; i++) {
      pixels.data[4 * i] = 255 * image[i];
      pixels.data[4 * i + 1] = 255 * image[i + green];
      pixels.data[4 * i + 2] = 255 * image[i + 2 * green];
    }
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  const sprite = new Image();
  if (points.count) sprite.src = `data:image/png;base64,${points.sprite}`;

  function paintTest(canvas, i) {
    const [h, w] = points.side;
    Object.assign(canvas, { width: w, height: h });
    const row = Math.floor(i / points.columns), column = i % points.columns;
    canvas.getContext("2d").drawImage(sprite, column * w, row * h, w, h, 0, 0, w, h);
  }

  // Jobs that are not urgent run between frames: one list for each place on the page.
  const jobs = new Map();

  function later(place, list) {
    jobs.set(place, list);
    schedule();
  }

  function work(until) {
    for (const [place, list] of jobs) {
      while (list.length && performance.now() < until) list.shift()();
      if (!list.length) jobs.delete(place);
    }
  }

  // -- the plane of the map -----------------------------------------------------------------------------------------

  // One dimension: z to the right, classes in lanes. Two: the latents. More: two principal axes of the codes.
  const lanes = data.classes.length;
  const axes = data.plane.axes.map((axis) => Float32Array.from(axis));

  function project(z) {
    if (D === 1) return [z[0], view.lane];
    return axes.map((axis) => axis.reduce((sum, value, i) => sum + value * (z[i] - data.plane.mean[i]), 0));
  }

  // The latent at a position of the plane through the current latent.
  function latentAt([x, y]) {
    if (D === 1) return Float32Array.of(x);
    const [x0, y0] = project(state.z);
    return state.z.map((value, i) => value + axes[0][i] * (x - x0) + axes[1][i] * (y - y0));
  }

  function placesOf(latents, labels) {
    const found = new Float32Array((latents.length / D) * 2);
    for (let i = 0; i < latents.length / D; i++) {
      const [x, y] = project(latents.subarray(i * D, (i + 1) * D));
      const jitter = ((i * 0.618034) % 1) - 0.5; // evenly spread and deterministic
      const lane = labels ? (labels[i] + 0.5 + 0.7 * jitter) / lanes : 0.5 + 0.9 * jitter;
      found[2 * i] = x;
      found[2 * i + 1] = D === 1 ? 3 - 6 * lane : y;
    }
    return found;
  }

  const view = { x: 0, y: 0, scale: 1, side: 1, lane: 0 }; // centre, pixels per unit, pixels
  const places = placesOf(points.codes, points.labels);
  const priorPlaces = placesOf(prior.draws, null);

  const toScreen = ([x, y]) => [view.side / 2 + (x - view.x) * view.scale, view.side / 2 - (y - view.y) * view.scale];
  const toPlane = ([x, y]) => [view.x + (x - view.side / 2) / view.scale, view.y - (y - view.side / 2) / view.scale];

  function fit() {
    const all = points.count ? places : priorPlaces;
    const bounds = [0, 1].map((axis) => {
      const sorted = Float32Array.from({ length: all.length / 2 }, (_, i) => all[2 * i + axis]).sort();
      const low = sorted[Math.floor(0.002 * sorted.length)], high = sorted[Math.floor(0.998 * (sorted.length - 1))];
      const [x] = [project(centre)[axis]];
      return [Math.min(low, x), Math.max(high, x)];
    });
    [view.x, view.y] = bounds.map(([low, high]) => (low + high) / 2);
    const extent = Math.max(...bounds.map(([low, high]) => high - low), D === 1 ? 6 : 0.1);
    if (D === 1) view.y = 0;
    view.scale = view.side / (1.1 * extent);
    redrawMap();
  }

  function zoom(factor, at = [view.side / 2, view.side / 2]) {
    const [x, y] = toPlane(at);
    view.scale *= factor;
    const [x1, y1] = toPlane(at);
    view.x += x - x1;
    view.y += y - y1;
    redrawMap();
  }

  // The test image nearest to a position on the screen, at a distance below `reach` pixels; -1 for none.
  function pointAt([x, y], reach) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < points.count; i++) {
      if (state.onlyClass !== null && points.labels[i] !== state.onlyClass) continue;
      const dx = view.side / 2 + (places[2 * i] - view.x) * view.scale - x;
      const dy = view.side / 2 - (places[2 * i + 1] - view.y) * view.scale - y;
      if (dx * dx + dy * dy < least) [best, least] = [i, dx * dx + dy * dy];
    }
    return best;
  }

  // The test image whose code is nearest in all dimensions, and its distance.
  function nearest(z) {
    let best = -1, least = Infinity;
    for (let i = 0, at = 0; i < points.count; i++) {
      let sum = 0;
      for (let d = 0; d < D; d++, at++) sum += (points.codes[at] - z[d]) ** 2;
      if (sum < least) [best, least] = [i, sum];
    }
    return [best, Math.sqrt(least)];
  }

  // -- drawing the map ----------------------------------------------------------------------------------------------

  const dirty = { image: true, map: true, marks: true };
  let isScheduled = false;
  let style = {};

  function readStyle() {
    const computed = getComputedStyle(document.documentElement);
    style = Object.fromEntries(["paper", "ink", "dim", "line", "accent"].map((name) =>
      [name, computed.getPropertyValue(`--${name}`).trim()]));
  }

  function layer(id) {
    const canvas = $(id), ratio = Math.min(devicePixelRatio || 1, 3), side = Math.round(view.side * ratio);
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, view.side, view.side);
    return context;
  }

  function redrawMap() {
    dirty.map = dirty.marks = true;
    schedule();
  }

  function drawPoints() {
    const context = layer("points"), isOverImages = state.layers.decoded;
    drawAxes(context);
    const dots = (from, count, radius, pick) => {
      for (let i = 0; i < count; i++) {
        const [x, y] = toScreen([from[2 * i], from[2 * i + 1]]);
        if (x < -9 || y < -9 || x > view.side + 9 || y > view.side + 9 || !pick(i)) continue;
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.fill();
      }
    };
    if (state.layers.prior) {
      context.globalAlpha = 0.45;
      context.fillStyle = isOverImages ? "#fff" : style.dim;
      dots(priorPlaces, priorPlaces.length / 2, 1.2, () => true);
    }
    if (state.layers.points) {
      const radius = Math.min(Math.max(2 * Math.sqrt(view.side / 500), 1.8), 3);
      const pick = (i) => {
        const label = points.labels[i], isShown = state.onlyClass === null || label === state.onlyClass;
        context.globalAlpha = isShown ? 0.85 : 0.07;
        context.fillStyle = data.classes.length > 1 ? colourOf(label) : style.accent;
        return true;
      };
      dots(places, points.count, radius, pick);
    }
    context.globalAlpha = 1;
  }

  // Ticks at a step of 1, 2 or 5 times a power of ten that leaves room for the labels.
  function drawAxes(context) {
    const least = 70 / view.scale, power = 10 ** Math.floor(Math.log10(least));
    const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= least);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const [left, top] = toPlane([0, 0]), [right, bottom] = toPlane([view.side, view.side]);
    context.lineWidth = 1;
    context.font = "11px system-ui, sans-serif";
    for (const [low, high, isAcross] of D === 1 ? [[left, right, true]] : [[left, right, true], [bottom, top, false]]) {
      for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
        const [x, y] = toScreen([value, value]).map(Math.round), isZero = Math.abs(value) < step / 2;
        context.strokeStyle = style.line;
        context.globalAlpha = state.layers.decoded ? 0 : isZero ? 1 : 0.55;
        context.beginPath();
        context.moveTo(isAcross ? x + 0.5 : 0, isAcross ? 0 : y + 0.5);
        context.lineTo(isAcross ? x + 0.5 : view.side, isAcross ? view.side : y + 0.5);
        context.stroke();
        if (state.layers.decoded) continue;
        context.globalAlpha = 1;
        context.fillStyle = style.dim;
        const text = (isZero ? 0 : value).toFixed(digits).replace("-", "−");
        if (isAcross && x > 26 && x < view.side - $("right").offsetWidth - 46) context.fillText(text, x + 4, view.side - 6);
        if (!isAcross && y > 20 && y < view.side - 24) context.fillText(text, 24, y - 4);
      }
    }
    if (D === 1 && isFew && points.count) {
      context.fillStyle = style.dim;
      data.classes.forEach((name, label) => {
        context.fillText(name, 8, toScreen([0, 3 - (6 * (label + 0.5)) / lanes])[1] + 4);
      });
    }
  }

  let tiled = ""; // the plane and class of the tiles on the map, see planeKey

  function drawTiles() {
    const context = layer("tiles");
    tiled = "";
    $("plane").classList.toggle("tiled", state.layers.decoded);
    jobs.delete("tiles");
    if (!state.layers.decoded) return;
    const count = Math.max(6, Math.min(20, Math.round(view.side / 34))), cell = view.side / count;
    const canvas = make("canvas"), list = [], here = toScreen(project(state.z));
    context.imageSmoothingEnabled = cell < width;
    for (let row = 0; row < count; row++) {
      for (let column = 0; column < count; column++) {
        const middle = [(column + 0.5) * cell, (row + 0.5) * cell];
        const distance = Math.hypot(middle[0] - here[0], middle[1] - here[1]);
        list.push({ distance, run: () => {
          paint(canvas, latentAt(toPlane(middle)));
          const side = Math.min(cell / width, cell / height), [x, y] = middle;
          context.drawImage(canvas, x - (side * width) / 2, y - (side * height) / 2, side * width + 0.5, side * height + 0.5);
        } });
      }
    }
    tiled = planeKey(state.z);
    list.sort((a, b) => a.distance - b.distance);
    later("tiles", list.map(({ run }) => run));
  }

  // The component of a latent outside the plane, and the class: all tiles share these.
  function planeKey(z) {
    const [x, y] = project(z);
    const rest = D < 3 ? [] : Array.from(z, (value, i) => (value - axes[0][i] * x - axes[1][i] * y).toFixed(3));
    return [...rest, state.y ?? ""].join();
  }

  function drawMarks() {
    const context = layer("marks");
    const ring = ([x, y], radius, colour, thickness) => {
      for (const [stroke, size] of [[style.paper, thickness + 2.5], [colour, thickness]]) {
        context.strokeStyle = stroke;
        context.lineWidth = size;
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.stroke();
      }
    };
    const ends = state.ends.map((i) => (i === null ? null : toScreen([places[2 * i], places[2 * i + 1]])));
    if (ends[0] && ends[1]) {
      for (const [stroke, size] of [[style.paper, 4.5], [style.ink, 1.5]]) {
        context.strokeStyle = stroke;
        context.lineWidth = size;
        context.beginPath();
        context.moveTo(...ends[0]);
        context.lineTo(...ends[1]);
        context.stroke();
      }
    }
    ends.forEach((end, which) => {
      if (!end) return;
      context.fillStyle = style.ink;
      context.beginPath();
      context.arc(...end, 9, 0, 2 * Math.PI);
      context.fill();
      context.fillStyle = style.paper;
      context.font = "600 11px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText("AB"[which], end[0], end[1] + 4);
      context.textAlign = "start";
    });
    if (hovered >= 0) ring(toScreen([places[2 * hovered], places[2 * hovered + 1]]), 5, style.ink, 1.5);
    const here = toScreen(project(state.z));
    if (D === 1) {
      context.fillStyle = style.accent;
      context.fillRect(here[0] - 1, 0, 2, view.side);
    }
    ring(here, 8, style.accent, 3);
  }

  // -- one frame ----------------------------------------------------------------------------------------------------

  function schedule() {
    if (isScheduled) return;
    isScheduled = true;
    requestAnimationFrame(frame);
  }

  function frame(now) {
    isScheduled = false;
    if (dirty.map) {
      drawPoints();
      drawTiles();
    }
    if (dirty.image) {
      paint($("image"), state.z);
      describe();
      panels.forEach((panel) => panel.update());
      watchers.forEach((watch) => watch());
      if (state.layers.decoded && tiled !== planeKey(state.z)) drawTiles();
    }
    if (dirty.image || dirty.marks || dirty.map) drawMarks();
    dirty.image = dirty.marks = dirty.map = false;
    work(Math.max(performance.now(), now) + 10);
    $("speed").textContent = `${milliseconds.toFixed(1)} ms per image, decoded in this browser by ${decoder.steps.length} operations.`;
    if (jobs.size) schedule();
  }

  function describe() {
    const [best, distance] = nearest(state.z);
    const radius = Math.hypot(...state.z.map((value, i) => value - centre[i]));
    $("where").textContent = D <= 2
      ? `z = (${Array.from(state.z, signed).join(", ")})`
      : `${radius.toFixed(2)} from ${prior.centre ? "the prior’s centre" : "the map’s centre"}`;
    if (best < 0) return;
    if ($("neighbour").dataset.image !== String(best)) {
      paintTest($("neighbour"), best);
      $("neighbour").dataset.image = best;
    }
    $("nearest").textContent =
      distance < 1e-4 ? `the code of ${nameOf(best)}` : `nearest code: ${nameOf(best)}, ${distance.toFixed(2)} away`;
  }

  // Moves to a latent. Attributes are reset unless they cause the move.
  function go(z, { y = null, by = null } = {}) {
    state.z = Float32Array.from(z);
    if (y !== null && state.y !== null) {
      if (String(y) !== String(state.y)) {
        state.y = Float32Array.from(y);
        refreshSamples();
        if (state.layers.decoded) dirty.map = true;
      }
    }
    if (by !== "attributes") {
      state.z0 = Float32Array.from(z);
      state.amounts.fill(0);
    }
    dirty.image = true;
    schedule();
  }

  function goToImage(i) {
    if (D === 1) view.lane = places[2 * i + 1];
    go(code(i), { y: state.y && oneHot(points.labels[i]) });
  }

  // -- moving on the map --------------------------------------------------------------------------------------------

  let hovered = -1;
  const touches = new Map(); // pointers that are down
  let press = null;

  const positionOf = (event) => {
    const box = $("plane").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function moveTo(position) {
    const place = toPlane(position);
    if (D === 1) view.lane = place[1];
    go(latentAt(place));
  }

  function setHovered(i) {
    if (i === hovered) return;
    hovered = i;
    dirty.marks = true;
    schedule();
  }

  function choose(i) {
    const which = state.picking;
    setPicking(null);
    setEnd(which, i);
  }

  function setPicking(which) {
    state.picking = which;
    $("picking").textContent = which === null ? "" : `Choose image ${"AB"[which]} on the map`;
    panels.forEach((panel) => panel.update());
  }

  const lens = $("lens"), [lensImage, lensTest] = lens.querySelectorAll("figure");

  function showLens(event, position) {
    const reach = state.picking === null ? 9 : 40;
    const near = state.layers.points || state.picking !== null ? pointAt(position, reach) : -1;
    setHovered(near);
    paint(lensImage.firstChild, latentAt(toPlane(position)));
    lensTest.style.display = near < 0 ? "none" : "";
    if (near >= 0) {
      paintTest(lensTest.firstChild, near);
      lensTest.lastChild.textContent = nameOf(near);
    }
    lens.style.display = "flex";
    const box = lens.getBoundingClientRect();
    const x = event.clientX + 18 + box.width > innerWidth ? event.clientX - 18 - box.width : event.clientX + 18;
    const y = event.clientY + 18 + box.height > innerHeight ? event.clientY - 18 - box.height : event.clientY + 18;
    lens.style.transform = `translate(${Math.max(0, x)}px, ${Math.max(0, y)}px)`;
  }

  function hideLens() {
    lens.style.display = "none";
    setHovered(-1);
  }

  function pinch() {
    const [a, b] = [...touches.values()];
    return { middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], distance: Math.hypot(a[0] - b[0], a[1] - b[1]) || 1 };
  }

  function listenToMap() {
    const plane = $("plane");
    plane.addEventListener("pointerdown", (event) => {
      if (event.button || event.target.closest("button")) return;
      plane.setPointerCapture(event.pointerId);
      const position = positionOf(event);
      touches.set(event.pointerId, position);
      hideLens();
      if (touches.size === 2) press = pinch();
      if (touches.size > 1) return;
      const near = pointAt(position, event.pointerType === "mouse" ? 9 : 16);
      press = { from: position, near: state.layers.points ? near : -1, hasMoved: false };
      if (state.picking === null && press.near < 0) moveTo(position);
    });
    plane.addEventListener("pointermove", (event) => {
      const position = positionOf(event);
      if (!touches.has(event.pointerId)) {
        if (event.pointerType === "mouse" && !event.target.closest("button")) showLens(event, position);
        return;
      }
      touches.set(event.pointerId, position);
      if (touches.size > 1 && press?.middle) {
        const now = pinch();
        view.x -= (now.middle[0] - press.middle[0]) / view.scale;
        view.y += (now.middle[1] - press.middle[1]) / view.scale;
        zoom(now.distance / press.distance, now.middle);
        press = now;
      } else if (press?.from && state.picking === null) {
        const distance = Math.hypot(position[0] - press.from[0], position[1] - press.from[1]);
        press.hasMoved ||= distance > 4;
        if (press.hasMoved) moveTo(position);
      }
    });
    const release = (event) => {
      const isTap = event.type === "pointerup" && touches.size === 1 && press?.from && !press.hasMoved;
      touches.delete(event.pointerId);
      if (isTap && state.picking !== null) {
        const near = pointAt(press.from, Infinity);
        if (near >= 0) choose(near);
      } else if (isTap && press.near >= 0) goToImage(press.near);
      press = null;
    };
    plane.addEventListener("pointerup", release);
    plane.addEventListener("pointercancel", release);
    plane.addEventListener("pointerleave", hideLens);
    plane.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.0015)), positionOf(event));
    }, { passive: false });
    plane.addEventListener("keydown", (event) => {
      if (event.target !== plane || event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 40 : 8;
      const [x, y] = toScreen(project(state.z));
      const keys = {
        ArrowLeft: () => moveTo([x - step, y]),
        ArrowRight: () => moveTo([x + step, y]),
        ArrowUp: () => moveTo([x, y - step]),
        ArrowDown: () => moveTo([x, y + step]),
        Enter: () => state.picking === null ? goToNearest() : chooseNearest(state.picking),
        a: () => chooseNearest(0),
        b: () => chooseNearest(1),
        "+": () => zoom(1.25, [x, y]),
        "-": () => zoom(0.8, [x, y]),
        0: fit,
        Escape: () => setPicking(null),
      };
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => (Number(button.dataset.zoom) ? zoom(Number(button.dataset.zoom)) : fit()));
    }
    new ResizeObserver(() => {
      const side = plane.clientWidth;
      if (!side || side === view.side) return;
      view.scale *= side / view.side;
      view.side = side;
      redrawMap();
    }).observe(plane);
  }

  function goToNearest() {
    if (points.count) goToImage(nearest(state.z)[0]);
  }

  function chooseNearest(which) {
    if (!points.count) return;
    state.picking = which;
    choose(nearest(state.z)[0]);
  }

  // -- tools --------------------------------------------------------------------------------------------------------

  const panels = []; // each with a title, an element, and a function to call after a move
  const watchers = []; // other functions to call after a move

  function slider(label, attributes, oninput) {
    const output = make("output");
    const input = make("input", { type: "range", "aria-label": label, ...attributes });
    input.addEventListener("input", () => oninput(Number(input.value)));
    return { input, output };
  }

  // A slider for each dimension, the most active first, with a histogram of the codes.
  function dimensions() {
    const rows = data.order.map((d) => {
      const values = Float32Array.from({ length: points.count }, (_, i) => points.codes[i * D + d]);
      const reach = Math.max(3, ...values.map(Math.abs)) * 1.02;
      const activity = data.kl ? `${data.kl[d].toFixed(2)} nats` : data.variance ? `var ${data.variance[d].toFixed(2)}` : "";
      const { input, output } = slider(`z ${d}`, { min: -reach, max: reach, step: reach / 300 }, (value) => {
        const z = Float32Array.from(state.z);
        z[d] = value;
        go(z);
      });
      const bins = new Array(48).fill(0);
      for (const value of values) bins[Math.min(47, Math.floor(((value + reach) / (2 * reach)) * 48))]++;
      const most = Math.max(...bins, 1);
      const namespace = "http://www.w3.org/2000/svg";
      const svg = document.createElementNS(namespace, "svg");
      svg.setAttribute("viewBox", "0 0 48 1");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      const path = document.createElementNS(namespace, "path");
      const outline = bins.map((count, i) => `L${i} ${1 - count / most}L${i + 1} ${1 - count / most}`);
      path.setAttribute("d", `M0 1${outline.join("")}L48 1Z`);
      if (points.count) svg.append(path);
      const name = make("label", {}, `z[${d}] `, make("small", {}, activity));
      input.addEventListener("dblclick", () => {
        const z = Float32Array.from(state.z);
        z[d] = centre[d];
        go(z);
      });
      return { d, input, output, row: make("div", { class: "row" }, name, make("div", { class: "track" }, svg, input), output) };
    });
    const few = 8, rest = make("div", { hidden: rows.length > few + 1 }, ...rows.slice(few).map(({ row }) => row));
    const more = make("button", { type: "button", hidden: !rest.hidden, onclick: () => {
      rest.hidden = !rest.hidden;
      more.textContent = rest.hidden ? `All ${D} dimensions` : "Fewer";
    } }, `All ${D} dimensions`);
    const beside = data.kl ? "their mean KL divergence from the prior" : data.variance ? "the variance of their codes" : "";
    const note = points.count && beside
      ? `Dimensions are sorted by the variance of the codes. Beside them: ${beside}. Behind a slider: the codes of test images. `
        + "A double click resets a slider."
      : "A double click resets a slider.";
    return {
      title: "Dimensions",
      element: make("div", {}, ...rows.slice(0, few).map(({ row }) => row), rest, more, make("p", { class: "note" }, note)),
      update: () => rows.forEach(({ d, input, output }) => {
        if (document.activeElement !== input || Math.abs(Number(input.value) - state.z[d]) > 0.02) input.value = state.z[d];
        output.value = signed(state.z[d]);
      }),
    };
  }

  let setEnd, refreshSamples = () => {};

  function interpolation() {
    const figures = [0, 1].map((which) => {
      const canvas = make("canvas", { width: points.side[1], height: points.side[0] });
      const caption = make("figcaption", {}, "none yet");
      const pick = make("button", { type: "button", "aria-pressed": "false", onclick: () => {
        setPicking(state.picking === which ? null : which);
        if (state.picking !== null) $("plane").focus({ preventScroll: false });
      } }, `Pick ${"AB"[which]}`);
      return { canvas, caption, pick, element: make("figure", {}, canvas, caption, pick) };
    });
    const { input } = slider("from A to B", { min: 0, max: 1, step: 0.005, value: 0, disabled: true }, (t) => {
      const [a, b] = state.ends;
      const y = state.y && mixed(oneHot(points.labels[a]), oneHot(points.labels[b]), t);
      go(mixed(code(a), code(b), t), { y, by: "interpolation" });
    });
    const count = 11;
    const strip = [...Array(count).keys()].map((i) => {
      const canvas = make("canvas", { width, height });
      return make("button", { type: "button", "aria-label": `${Math.round((100 * i) / (count - 1))} % of the way`, disabled: true,
        onclick: () => {
          input.value = i / (count - 1);
          input.dispatchEvent(new Event("input"));
        } }, canvas);
    });
    setEnd = (which, i) => {
      state.ends[which] = i;
      paintTest(figures[which].canvas, i);
      figures[which].caption.textContent = nameOf(i);
      const [a, b] = state.ends, isWhole = a !== null && b !== null;
      input.disabled = !isWhole;
      input.value = which;
      strip.forEach((button) => (button.disabled = !isWhole));
      if (isWhole) {
        later("strip", strip.map((button, k) => () => {
          const t = k / (count - 1), y = state.y && mixed(oneHot(points.labels[a]), oneHot(points.labels[b]), t);
          paint(button.firstChild, mixed(code(a), code(b), t), y);
        }));
      }
      goToImage(i);
    };
    const pair = make("button", { type: "button", onclick: () => {
      const a = Math.floor(Math.random() * points.count);
      const others = [...points.labels.keys()].filter((i) => i !== a);
      const unlike = others.filter((i) => points.labels[i] !== points.labels[a]);
      const choices = unlike.length ? unlike : others;
      setEnd(0, a);
      setEnd(1, choices[Math.floor(Math.random() * choices.length)]);
      input.value = 0.5;
      input.dispatchEvent(new Event("input"));
    } }, "Two at random");
    const swap = make("button", { type: "button", onclick: () => {
      const [a, b] = state.ends;
      if (a === null || b === null) return;
      setEnd(0, b);
      setEnd(1, a);
    } }, "Swap");
    return {
      title: "Interpolation",
      element: make("div", {},
        make("div", { id: "ends" }, figures[0].element,
          make("div", { id: "middle" }, input, make("div", { class: "buttons" }, pair, swap)), figures[1].element),
        make("div", { id: "strip", class: "images" }, ...strip),
        make("p", { class: "note" }, "Interpolation along the straight line between the codes of two test images. On the map, the keys A and B pick the image with the nearest code.")),
      update: () => figures.forEach(({ pick }, which) => pick.setAttribute("aria-pressed", state.picking === which)),
    };
  }

  function attributes() {
    const known = data.attributes.map(({ name, direction }) => ({ name, direction: () => direction }));
    const rows = [];
    let line = null;
    const means = data.classMeans;
    if (means) {
      const present = data.classes.map((name, label) => [name, label]).filter(([, label]) => means[label]);
      const select = (chosen, label) => make("select", { "aria-label": label, onchange: apply }, ...present.map(([name, value], i) =>
        make("option", { value, selected: i === chosen }, name)));
      const from = select(Math.min(4, present.length - 2), "class that is subtracted"), to = select(Math.min(9, present.length - 1), "class that is added");
      known.unshift({ name: "class", direction: () => means[to.value].map((value, d) => value - means[from.value][d]) });
      line = make("div", { class: "line" }, make("label", {}, "class: from", from), make("label", {}, "to", to));
    }
    function apply() {
      const z = Float32Array.from(state.z0);
      known.forEach(({ direction }, k) => {
        if (state.amounts[k]) direction().forEach((value, d) => (z[d] += state.amounts[k] * value));
      });
      go(z, { by: "attributes" });
    }
    known.forEach(({ name }, k) => {
      state.amounts.push(0);
      const { input, output } = slider(name, { min: -2, max: 2, step: 0.05, value: 0 }, (value) => {
        state.amounts[k] = value;
        apply();
      });
      rows.push({ input, output, row: make("div", { class: "row" }, make("label", {}, name), input, output) });
    });
    const zero = make("button", { type: "button", onclick: () => {
      state.amounts.fill(0);
      apply();
    } }, "Reset attributes");
    return {
      title: "Attributes",
      element: make("div", {}, ...(line ? [line] : []), ...rows.map(({ row }) => row), zero,
        make("p", { class: "note" }, "A slider adds a multiple of a difference of mean codes to the current code."
          + (data.attributes.length ? " For a factor: test images above its median minus those below." : ""))),
      update: () => rows.forEach(({ input, output }, k) => {
        input.value = state.amounts[k];
        output.value = signed(state.amounts[k]);
      }),
    };
  }

  function samples() {
    const count = 24, total = prior.draws.length / D;
    const cells = [...Array(count).keys()].map((i) => {
      const canvas = make("canvas", { width, height });
      return make("button", { type: "button", "aria-label": `sample ${i + 1}`, onclick: () => go(latents[i]) }, canvas);
    });
    let latents = [];
    refreshSamples = () => {
      const random = generator(state.seed);
      const numbers = cells.map(() => Math.floor(random() * total));
      latents = numbers.map((i) => {
        const z = prior.draws.slice(i * D, (i + 1) * D);
        return prior.centre ? z.map((value, d) => centre[d] + state.temperature * (value - centre[d])) : z;
      });
      later("samples", latents.map((z, i) => () => paint(cells[i].firstChild, z)));
    };
    const seed = make("input", { type: "number", min: 0, step: 1, value: 0, onchange: () => {
      state.seed = Math.max(0, Math.floor(Number(seed.value)) || 0);
      seed.value = state.seed;
      refreshSamples();
    } });
    const again = make("button", { type: "button", onclick: () => {
      seed.value = ++state.seed;
      refreshSamples();
    } }, "Sample again");
    const { input, output } = slider("temperature", { min: 0, max: 1.5, step: 0.01, value: 1, disabled: !prior.centre }, (value) => {
      state.temperature = value;
      output.value = value.toFixed(2);
      refreshSamples();
    });
    output.value = "1.00";
    refreshSamples();
    const hint = prior.centre ? "Temperature: a factor of their distance from the prior’s centre." : "This prior has no centre, so there is no temperature.";
    return {
      title: "Samples",
      element: make("div", {},
        make("div", { class: "line" }, make("label", {}, "seed", seed), again),
        make("div", { class: "row" }, make("label", {}, "temperature"), input, output),
        make("div", { id: "samples", class: "images" }, ...cells),
        make("p", { class: "note" }, `${count} of ${total.toLocaleString("en")} samples of the prior, ${prior.name}. ${hint} A click moves to the latent of a sample.`)),
      update: () => cells.forEach((cell, i) => cell.setAttribute("aria-pressed", String(latents[i]) === String(state.z))),
    };
  }

  // Numbers in [0, 1) from a seed: mulberry32, by Tommy Ettinger, public domain.
  function generator(seed) {
    let a = (seed + 1) * 0x9e3779b9;
    return () => {
      a = (a + 0x6d2b79f5) | 0;
      let t = Math.imul(a ^ (a >>> 15), 1 | a);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  // -- start of the page --------------------------------------------------------------------------------------------

  function addPanel(panel) {
    const number = panels.length;
    const tab = make("button", { type: "button", role: "tab", id: `tab-${number}`, "aria-controls": `panel-${number}`, onclick: () => select(number) }, panel.title);
    panel.tab = tab;
    panel.box = make("div", { role: "tabpanel", id: `panel-${number}`, "aria-labelledby": `tab-${number}` }, panel.element);
    $("tabs").append(tab);
    $("panels").append(panel.box);
    panels.push(panel);
  }

  function select(number) {
    panels.forEach(({ tab, box }, i) => {
      tab.setAttribute("aria-selected", i === number);
      tab.tabIndex = i === number ? 0 : -1;
      box.hidden = i !== number;
    });
  }

  function toggles() {
    const names = [...(points.count ? [["points", "Test images"]] : []), ["prior", "Prior"], ["decoded", "Decoded"]];
    for (const [name, title] of names) {
      const button = make("button", { type: "button", "aria-pressed": state.layers[name], onclick: () => {
        state.layers[name] = !state.layers[name];
        button.setAttribute("aria-pressed", state.layers[name]);
        redrawMap();
      } }, title);
      $("layers").append(button);
    }
    if (!isFew || !points.count) return;
    data.classes.forEach((name, label) => {
      const dot = make("i");
      dot.style.setProperty("--colour", colourOf(label));
      const button = make("button", { type: "button", "aria-pressed": false, onclick: () => {
        state.onlyClass = state.onlyClass === label ? null : label;
        [...$("legend").children].forEach((other, i) => other.setAttribute("aria-pressed", state.onlyClass === i));
        redrawMap();
      } }, dot, name);
      $("legend").append(button);
    });
  }

  function classChooser() {
    if (!state.y) return;
    const group = $("classes");
    group.hidden = false;
    const buttons = data.classes.map((name, label) => make("button", { type: "button", role: "radio", onclick: () => go(state.z, { y: oneHot(label) }) }, name));
    group.append(make("span", { class: "note" }, "class"), ...buttons);
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const at = buttons.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      const next = buttons[(at + step + buttons.length) % buttons.length];
      next.focus();
      next.click();
    });
    watchers.push(() => {
      const chosen = state.y.findIndex((weight) => weight > 0.999);
      buttons.forEach((button, label) => {
        button.setAttribute("aria-checked", label === chosen);
        button.tabIndex = label === Math.max(chosen, 0) ? 0 : -1;
      });
    });
  }

  function begin() {
    readStyle();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      readStyle();
      redrawMap();
    });
    $("facts").append(...data.facts.flatMap(([name, value], i) => [i ? " · " : "", `${name} `, make("b", {}, value)]));
    $("right").textContent = data.plane.names[0];
    $("up").textContent = data.plane.names[1] ?? "";
    $("help").textContent = (points.count ? "Hover to decode, drag to move the code, click a point to select that image. " : "Hover to decode, drag to move the code. ")
      + "Wheel or pinch to zoom. " + (D > 2 ? "The map is a plane along two principal axes through the current code: the other axes stay constant." : "");
    addPanel(dimensions());
    if (points.count > 1) addPanel(interpolation());
    if (data.classMeans || data.attributes.length) addPanel(attributes());
    addPanel(samples());
    select(0);
    $("tabs").addEventListener("keydown", (event) => {
      const at = panels.findIndex(({ tab }) => tab === event.target);
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step || at < 0) return;
      const next = (at + step + panels.length) % panels.length;
      select(next);
      panels[next].tab.focus();
    });
    toggles();
    classChooser();
    $("near").hidden = $("random").hidden = !points.count;
    $("random").addEventListener("click", () => goToImage(Math.floor(Math.random() * points.count)));
    $("reset").addEventListener("click", () => {
      view.lane = 0;
      go(centre);
    });
    $("copy").addEventListener("click", async () => {
      const text = `[${Array.from(state.z, (value) => Number(value.toPrecision(7))).join(", ")}]`;
      try {
        await navigator.clipboard.writeText(text);
        $("copy").textContent = "Copied";
      } catch {
        prompt("the code", text); // some browsers forbid a local file to use the clipboard
      }
      setTimeout(() => ($("copy").textContent = "Copy code"), 1200);
    });
    view.side = $("plane").clientWidth;
    listenToMap();
    fit();
    go(state.z);
  }

  // For the browser's console: explorer.go([...]), explorer.decode([...]).
  globalThis.explorer = { state, go, goToImage, decode: (z, y = state.y) => Array.from(decoder.decode(z, y)), places: () => places, toScreen };

  if (points.count) sprite.decode().then(begin, begin);
  else begin();
})();
