// A decoder in plain JavaScript: the operations of a graph from explorer/graph.py, with one array of weights.
"use strict";

const size = (shape) => shape.reduce((product, side) => product * side, 1);

class Decoder {
  // graph: from Graph.as_json(); weights: Float32Array. The constructor allocates all memory, decode() none.
  constructor(graph, weights) {
    const first = graph.inputs.length;
    const constants = graph.constants.map(([shape, start]) => weights.subarray(start, start + size(shape)));
    this.inputs = graph.inputs.map((shape) => new Float32Array(size(shape)));
    this.steps = [];
    const values = [...this.inputs];
    const isFixed = values.map(() => false); // whether the value is the same for all latents
    const lastUse = new Map([[graph.output, Infinity]]);
    graph.nodes.forEach(([, operands], step) => {
      for (const value of operands) lastUse.set(value, Math.max(step, lastUse.get(value) ?? 0));
    });
    const free = new Map(); // length to the arrays that no later operation reads
    graph.nodes.forEach(([name, operands, settings, shape], step) => {
      const given = operands.map((value) => (value < 0 ? constants[-1 - value] : values[value]));
      const fixed = operands.every((value) => value < 0 || isFixed[value]);
      const out = (!fixed && free.get(size(shape))?.pop()) || new Float32Array(size(shape));
      const run = OPERATIONS[name](out, given, settings, shape);
      if (fixed) run();
      else this.steps.push(run);
      values.push(out);
      isFixed.push(fixed);
      for (const value of new Set(operands)) {
        if (value < first || isFixed[value] || lastUse.get(value) !== step) continue;
        const length = values[value].length;
        free.set(length, [...(free.get(length) ?? []), values[value]]);
      }
    });
    this.output = values[graph.output];
    const last = graph.nodes[graph.output - first];
    this.shape = last[3].slice(1); // (C, H, W)
  }

  // The image of a latent vector and, if the model is conditional, weights of the classes. The array is reused.
  decode(z, y) {
    this.inputs[0].set(z);
    if (this.inputs.length > 1) this.inputs[1].set(y);
    for (const step of this.steps) step();
    return this.output;
  }
}

// An operation takes the array of its result, its operands and its settings. It returns a function that computes it.
const OPERATIONS = {
  where: (out, [condition, x, other]) => {
    const [a, b, c] = [condition, x, other].map((operand) => stride(operand, out));
    return () => {
      for (let i = 0; i < out.length; i++) out[i] = condition[i * a] ? x[i * b] : other[i * c];
    };
  },

  // Copies numbers. A source index is the sum of one entry per dimension's table; null in any table gives `fill`.
  gather: (out, [x], { tables, origin, fill }) => {
    const places = new Int32Array(out.length).fill(origin);
    let inner = out.length;
    for (const table of tables) {
      inner /= table.length;
      for (let i = 0; i < out.length; i++) {
        const term = table[Math.floor(i / inner) % table.length];
        places[i] = term === null || places[i] === -1 ? -1 : places[i] + term;
      }
    }
    return () => {
      for (let i = 0; i < out.length; i++) out[i] = places[i] < 0 ? fill : x[places[i]];
    };
  },

  cat: (out, parts, { rows }) => () => {
    const width = out.length / rows;
    let start = 0;
    for (const part of parts) {
      const columns = part.length / rows;
      for (let row = 0; row < rows; row++) {
        for (let i = 0; i < columns; i++) out[row * width + start + i] = part[row * columns + i];
      }
      start += columns;
    }
  },

  sum: (out, [x], { size, inner }) => reduce(out, x, size, inner, 0, (total, value) => total + value),
  amax: (out, [x], { size, inner }) => reduce(out, x, size, inner, -Infinity, Math.max),

  matmul: (out, [x, weight], _, [rows, columns]) => () => {
    const depth = x.length / rows;
    out.fill(0);
    for (let row = 0; row < rows; row++) {
      const target = rows === 1 ? out : out.subarray(row * columns, (row + 1) * columns);
      let k = 0;
      for (; k + 4 <= depth; k += 4) {
        const i = row * depth + k, a = x[i], b = x[i + 1], c = x[i + 2], d = x[i + 3];
        if (a === 0 && b === 0 && c === 0 && d === 0) continue; // frequent after a ReLU
        const first = k * columns, second = first + columns, third = second + columns, fourth = third + columns;
        for (let j = 0; j < columns; j++) {
          target[j] += a * weight[first + j] + b * weight[second + j] + c * weight[third + j] + d * weight[fourth + j];
        }
      }
      for (; k < depth; k++) {
        const a = x[row * depth + k];
        for (let j = 0; j < columns; j++) target[j] += a * weight[k * columns + j];
      }
    }
  },

  convolution: (out, [x, weight, bias], { stride, padding, dilation, groups, input, kernel }, shape) => {
    const [, channels, height, width] = input;
    const [filters, depth, kernelHeight, kernelWidth] = kernel;
    const rows = filters / groups, pixels = shape[2] * shape[3], product = new Product(rows, size(kernel.slice(1)));
    const matrices = range(groups).map((group) =>
      product.packed((row, k) => weight[(group * rows + row) * product.depth + k]));
    const frame = new Frame(channels, height, width, padding, [height + 2 * padding[0], width + 2 * padding[1]]);
    const corners = frame.places(pixels, shape[3], stride);
    const shifts = frame.shifts(depth, kernelHeight, kernelWidth, dilation);
    return () => {
      frame.fill(x);
      for (let group = 0; group < groups; group++) {
        for (let start = 0; start < pixels; start += BLOCK) {
          const count = Math.min(BLOCK, pixels - start);
          for (let k = 0; k < product.depth; k++) {
            product.fill(k, frame.pixels, corners, start, count, group * depth * frame.plane + shifts[k]);
          }
          product.multiply(matrices[group], count);
          for (let row = 0; row < rows; row++) {
            const filter = group * rows + row, base = filter * pixels + start, shift = bias ? bias[filter] : 0;
            for (let i = 0; i < count; i++) out[base + i] = product.result[row * BLOCK + i] + shift;
          }
        }
      }
    };
  },

  transposed: (out, [x, weight, bias], { stride, padding, dilation, groups, input, kernel }, shape) => {
    const [, channels, , width] = input;
    const [, filters, kernelHeight, kernelWidth] = kernel;
    const depth = channels / groups, pixels = x.length / channels, area = kernelHeight * kernelWidth;
    const product = new Product(filters * area, depth);
    const matrices = range(groups).map((group) =>
      product.packed((row, k) => weight[(group * depth + k) * product.rows + row]));
    const sides = [0, 1].map((i) => Math.max(shape[2 + i] + padding[i],
      (input[2 + i] - 1) * stride[i] + (kernel[2 + i] - 1) * dilation[i] + 1));
    const frame = new Frame(shape[1], shape[2], shape[3], padding, sides);
    const corners = frame.places(pixels, width, stride);
    const shifts = frame.shifts(filters, kernelHeight, kernelWidth, dilation);
    const places = Int32Array.from(range(pixels));
    return () => {
      frame.pixels.fill(0);
      for (let group = 0; group < groups; group++) {
        for (let start = 0; start < pixels; start += BLOCK) {
          const count = Math.min(BLOCK, pixels - start);
          for (let k = 0; k < depth; k++) product.fill(k, x, places, start, count, (group * depth + k) * pixels);
          product.multiply(matrices[group], count);
          for (let row = 0; row < product.rows; row++) {
            const base = group * filters * frame.plane + shifts[row];
            for (let i = 0; i < count; i++) {
              frame.pixels[base + corners[start + i]] += product.result[row * BLOCK + i];
            }
          }
        }
      }
      frame.read(out, bias);
    };
  },

  norm: (out, [x, weight, bias], { groups, eps }) => () => {
    const count = x.length / groups, pixels = x.length / weight.length;
    for (let group = 0; group < groups; group++) {
      let sum = 0, squares = 0;
      for (let i = group * count; i < (group + 1) * count; i++) sum += x[i];
      const mean = sum / count;
      for (let i = group * count; i < (group + 1) * count; i++) squares += (x[i] - mean) * (x[i] - mean);
      const inverse = 1 / Math.sqrt(squares / count + eps);
      for (let start = group * count; start < (group + 1) * count; start += pixels) {
        const channel = start / pixels, factor = weight[channel] * inverse, shift = bias[channel] - mean * factor;
        for (let i = start; i < start + pixels; i++) out[i] = x[i] * factor + shift;
      }
    }
  },
};

const UNARY = {
  abs: Math.abs, ceil: Math.ceil, cos: Math.cos, erf, exp: Math.exp, expm1: Math.expm1, floor: Math.floor,
  log: Math.log, log1p: Math.log1p, logical_not: (x) => (x ? 0 : 1), neg: (x) => -x, reciprocal: (x) => 1 / x,
  relu: (x) => (x > 0 ? x : 0), rsqrt: (x) => 1 / Math.sqrt(x), sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  sign: Math.sign, sin: Math.sin, sqrt: Math.sqrt, tanh: Math.tanh,
};
for (const [name, f] of Object.entries(UNARY)) {
  OPERATIONS[name] = (out, [x]) => () => {
    for (let i = 0; i < out.length; i++) out[i] = f(x[i]);
  };
}

const BINARY = {
  add: (x, y) => x + y, sub: (x, y) => x - y, mul: (x, y) => x * y, div: (x, y) => x / y, pow: Math.pow,
  maximum: Math.max, minimum: Math.min, eq: (x, y) => (x === y ? 1 : 0), ne: (x, y) => (x !== y ? 1 : 0),
  lt: (x, y) => (x < y ? 1 : 0), le: (x, y) => (x <= y ? 1 : 0), gt: (x, y) => (x > y ? 1 : 0),
  ge: (x, y) => (x >= y ? 1 : 0), logical_and: (x, y) => (x && y ? 1 : 0), logical_or: (x, y) => (x || y ? 1 : 0),
};
for (const [name, f] of Object.entries(BINARY)) {
  OPERATIONS[name] = (out, [x, y]) => {
    const a = stride(x, out), b = stride(y, out);
    return () => {
      for (let i = 0; i < out.length; i++) out[i] = f(x[i * a], y[i * b]);
    };
  };
}

// The step between elements of an operand: 0 for a single number that is broadcast.
function stride(operand, out) {
  return operand.length === 1 && out.length > 1 ? 0 : 1;
}

function range(count) {
  return [...Array(count).keys()];
}

function reduce(out, x, size, inner, start, f) {
  return () => {
    for (let i = 0; i < out.length; i++) {
      let total = start;
      for (let k = 0; k < size; k++) total = f(total, x[(Math.floor(i / inner) * size + k) * inner + (i % inner)]);
      out[i] = total;
    }
  };
}

// The error function to 1.2e-7: Press et al., Numerical Recipes in C, 2nd edition, section 6.2.
function erf(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const coefficients = [
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223,
    0.17087277,
  ];
  let sum = 0;
  for (let i = coefficients.length - 1; i >= 0; i--) sum = sum * t + coefficients[i];
  const tail = t * Math.exp(-x * x + sum);
  return x >= 0 ? 1 - tail : tail - 1;
}

// Feature maps with a border of zeros, so that a kernel needs no bounds checks.
class Frame {
  constructor(channels, height, width, padding, sides) {
    this.plane = sides[0] * sides[1];
    this.pixels = new Float32Array(channels * this.plane);
    Object.assign(this, { channels, height, width, padding, side: sides[1] });
  }

  // Positions of the kernel's corner for each pixel of a map of this width.
  places(pixels, width, stride) {
    return Int32Array.from(range(pixels), (i) => Math.floor(i / width) * stride[0] * this.side + (i % width) * stride[1]);
  }

  // Offsets of the kernel's elements from its corner.
  shifts(channels, height, width, dilation) {
    return Int32Array.from(range(channels * height * width), (i) => {
      const y = Math.floor(i / width) % height, x = i % width;
      return Math.floor(i / (height * width)) * this.plane + y * dilation[0] * this.side + x * dilation[1];
    });
  }

  start(channel, row) {
    return channel * this.plane + (row + this.padding[0]) * this.side + this.padding[1];
  }

  fill(maps) {
    const { channels, height, width, pixels } = this;
    for (let channel = 0, i = 0; channel < channels; channel++) {
      for (let row = 0; row < height; row++) {
        const start = this.start(channel, row);
        for (let column = 0; column < width; column++) pixels[start + column] = maps[i++];
      }
    }
  }

  read(maps, bias) {
    const { channels, height, width, pixels } = this;
    for (let channel = 0, i = 0; channel < channels; channel++) {
      const shift = bias ? bias[channel] : 0;
      for (let row = 0; row < height; row++) {
        const start = this.start(channel, row);
        for (let column = 0; column < width; column++) maps[i++] = pixels[start + column] + shift;
      }
    }
  }
}

const BLOCK = 128; // columns at a time: the patches of a convolution then stay in the cache

// A matrix product in blocks of four rows and four columns, whose sixteen sums stay in registers.
class Product {
  constructor(rows, depth) {
    this.rows = rows;
    this.depth = depth;
    this.columns = new Float32Array(depth * BLOCK);
    this.result = new Float32Array(Math.ceil(rows / 4) * 4 * BLOCK);
  }

  // The left factor, with four rows interleaved.
  packed(at) {
    const matrix = new Float32Array(Math.ceil(this.rows / 4) * 4 * this.depth);
    for (let row = 0; row < this.rows; row++) {
      for (let k = 0; k < this.depth; k++) matrix[((row >> 2) * this.depth + k) * 4 + (row & 3)] = at(row, k);
    }
    return matrix;
  }

  // Fills a row of the right factor, with four columns interleaved, from given positions of the source.
  fill(k, source, places, start, count, shift) {
    const { columns, depth } = this;
    let i = 0, target = k * 4;
    for (; i + 4 <= count; i += 4, target += depth * 4) {
      const from = start + i;
      columns[target] = source[shift + places[from]];
      columns[target + 1] = source[shift + places[from + 1]];
      columns[target + 2] = source[shift + places[from + 2]];
      columns[target + 3] = source[shift + places[from + 3]];
    }
    for (; i < count; i++) columns[target + (i & 3)] = source[shift + places[start + i]];
  }

  multiply(matrix, count) {
    const { columns, result, rows, depth } = this;
    for (let column = 0; column < count; column += 4) {
      for (let row = 0; row < rows; row += 4) {
        let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
        let c0 = 0, c1 = 0, c2 = 0, c3 = 0, d0 = 0, d1 = 0, d2 = 0, d3 = 0;
        let j = column * depth;
        for (let i = row * depth; i < (row + 4) * depth; i += 4, j += 4) {
          const x0 = columns[j], x1 = columns[j + 1], x2 = columns[j + 2], x3 = columns[j + 3];
          let weight = matrix[i];
          a0 += weight * x0; a1 += weight * x1; a2 += weight * x2; a3 += weight * x3;
          weight = matrix[i + 1];
          b0 += weight * x0; b1 += weight * x1; b2 += weight * x2; b3 += weight * x3;
          weight = matrix[i + 2];
          c0 += weight * x0; c1 += weight * x1; c2 += weight * x2; c3 += weight * x3;
          weight = matrix[i + 3];
          d0 += weight * x0; d1 += weight * x1; d2 += weight * x2; d3 += weight * x3;
        }
        let o = row * BLOCK + column;
        result[o] = a0; result[o + 1] = a1; result[o + 2] = a2; result[o + 3] = a3;
        o += BLOCK;
        result[o] = b0; result[o + 1] = b1; result[o + 2] = b2; result[o + 3] = b3;
        o += BLOCK;
        result[o] = c0; result[o + 1] = c1; result[o + 2] = c2; result[o + 3] = c3;
        o += BLOCK;
        result[o] = d0; result[o + 1] = d1; result[o + 2] = d2; result[o + 3] = d3;
      }
    }
  }
}

if (typeof module !== "undefined") module.exports = { Decoder };
