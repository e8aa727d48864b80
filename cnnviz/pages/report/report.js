"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const evidence = bytesOf(data.evidence), signed = bytesOf(data.signed);
  const controls = byId("controls"), told = byId("told");
  const LONGEST = 384, SMOOTH = 112, ZERO = 128, STEPS = 1021; // four steps for each byte
  const state = { opacity: 0.5, depth: data.depth.length, full: "cut", only: false };

  const element = (name, text = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };
  const number = (value) => {
    if (value === 0) return "0";
    const short = Number(value.toPrecision(3));
    const size = Math.abs(short);
    return (size >= 1e5 || size < 1e-4 ? short.toExponential() : String(short)).replaceAll("-", "−");
  };

  async function inflated(text) {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // One map of a tile: its bytes, its size, and its scale.
  class StoredMap {
    constructor([width, height, low, high, cut, peak, ownWidth, ownHeight], bytes) {
      Object.assign(this, { width, height, low, high, cut, peak, ownWidth, ownHeight, bytes });
    }
    value(byte) {
      return this.low + (byte / 255) * (this.high - this.low);
    }
    peakCell() {
      let best = 0;
      for (let place = 1; place < this.bytes.length; place++) if (this.bytes[place] > this.bytes[best]) best = place;
      return { column: best % this.width, row: Math.floor(best / this.width) };
    }
  }

  class Tile {
    constructor(figure, row, method, known) {
      Object.assign(this, { row, method, known });
      this.still = figure.querySelector(".still");
      this.layer = figure.querySelector(".layer");
      this.limits = figure.querySelector(".limits");
      this.readout = figure.querySelector(".value");
      this.cell = null;
      if (known.drawn) return;
      this.canvas = element("canvas");
      const [width, height] = row.size, scale = Math.max(1, LONGEST / Math.max(width, height));
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.scale = scale;
      this.box = row.box.map((side) => side * scale);
      this.over = element("canvas"); // the map alone, in colours
      this.bar = element("canvas");
      this.bar.width = 96;
      this.bar.height = 1;
      this.bar.setAttribute("aria-hidden", "true");
      figure.querySelector(".scale").prepend(this.bar);
      this.listen();
    }

    async open() {
      if (this.known.drawn) return;
      const content = await inflated(this.known.bytes);
      let start = 0;
      this.maps = this.known.maps.map((layers) =>
        layers.map((about) => {
          const size = about[0] * about[1];
          start += size;
          return new StoredMap(about, content.subarray(start - size, start));
        }),
      );
      this.peak = Math.max(...this.maps.flat().map((each) => each.high));
      this.draw();
      this.still.replaceWith(this.canvas);
    }

    get rank() {
      return Math.min(this.row.rank, this.row.classes.length - 1);
    }

    get layerName() {
      return this.place ? data.depth[state.depth] : this.method.own;
    }

    get place() {
      return this.method.layers.indexOf(data.depth[state.depth]) + 1; // 0: the method's own layer
    }

    get map() {
      return this.maps[this.rank][this.place];
    }

    get signed() {
      return this.method.signed[this.place];
    }

    // Values as shares of full colour, and the colour and opacity of each.
    colours(map) {
      const full = this.full(map);
      const both = this.signed && !state.only, table = both ? signed : evidence;
      const found = new Uint8ClampedArray(STEPS * 4);
      for (let step = 0; step < STEPS; step++) {
        let share = full > 0 ? map.value(step / 4) / full : 0;
        share = Math.min(1, Math.max(both ? -1 : 0, share));
        const index = 3 * Math.round(both ? ((share + 1) / 2) * 255 : share * 255);
        const strength = Math.abs(share), opacity = state.opacity;
        const alpha = opacity <= 0.5 ? 2 * opacity * strength : strength + (2 * opacity - 1) * (1 - strength);
        found.set([table[index], table[index + 1], table[index + 2], Math.round(alpha * 255)], 4 * step);
      }
      return { table: found, full, both };
    }

    draw() {
      if (this.known.drawn) {
        this.still.src = this.known.drawn[this.rank];
        this.still.alt = this.described();
        return;
      }
      const map = this.map, high = number(map.high);
      this.canvas.setAttribute("aria-label", this.described());
      this.layer.textContent = this.layerName ? `layer ${this.layerName}` : "";
      this.limits.textContent = !map.high ? "blank: zero everywhere" : this.signed ? `−${high} to ${high}` : `0 to ${high}`;
      this.limits.title = `full colour at ${number(this.full(map))}; the method’s own map, ${map.ownWidth} × ${map.ownHeight}, has the peak ${number(map.peak)}`;
      this.tell();
      this.stale = true;
      if (this.row.near) this.refresh();
    }

    // Draw what is stale; of tiles that nobody sees this waits until somebody does.
    refresh() {
      if (!this.stale) return;
      this.stale = false;
      const map = this.map, colours = this.colours(map);
      this.paint(map, colours.table);
      const [left, top, right, bottom] = this.box;
      const brush = this.canvas.getContext("2d");
      brush.imageSmoothingEnabled = true;
      brush.imageSmoothingQuality = "high";
      brush.drawImage(this.row.photograph, 0, 0, this.canvas.width, this.canvas.height);
      brush.drawImage(this.over, left, top, right - left, bottom - top);
      if (!this.row.isWhole) this.frame(brush, left, top, right - left, bottom - top, [5, 4]);
      for (const box of this.row.classes[this.rank].boxes) {
        const [x1, y1, x2, y2] = box.map((side) => side * this.scale);
        this.frame(brush, x1, y1, x2 - x1, y2 - y1, []);
      }
      if (this.cell) {
        const across = (right - left) / map.width, down = (bottom - top) / map.height;
        const { column, row } = this.cell;
        this.frame(brush, left + column * across, top + row * down, across, down, []);
      }
      this.drawBar(map, colours);
    }

    full(map) {
      return state.full === "cut" ? map.cut : state.full === "peak" ? map.high : this.peak;
    }

    // The map in colours, interpolated between the middles of its places as cnnviz interpolates maps.
    paint(map, table) {
      const grow = Math.max(1, SMOOTH / Math.max(map.width, map.height));
      const width = Math.round(map.width * grow), height = Math.round(map.height * grow);
      if (this.over.width !== width || this.over.height !== height) Object.assign(this.over, { width, height });
      const brush = this.over.getContext("2d"), image = brush.createImageData(width, height);
      const between = (place, size, count) => {
        const at = Math.min(Math.max(((place + 0.5) * count) / size - 0.5, 0), count - 1), first = Math.floor(at);
        return [first, Math.min(first + 1, count - 1), at - first];
      };
      const columns = Array.from({ length: width }, (_, x) => between(x, width, map.width));
      for (let y = 0, out = 0; y < height; y++) {
        const [above, below, down] = between(y, height, map.height);
        for (let x = 0; x < width; x++, out += 4) {
          const [one, two, right] = columns[x], upper = above * map.width, lower = below * map.width, { bytes } = map;
          const high = bytes[upper + one] + (bytes[upper + two] - bytes[upper + one]) * right;
          const low = bytes[lower + one] + (bytes[lower + two] - bytes[lower + one]) * right;
          const from = 4 * Math.round(4 * (high + (low - high) * down));
          for (let part = 0; part < 4; part++) image.data[out + part] = table[from + part];
        }
      }
      brush.putImageData(image, 0, 0);
    }

    frame(brush, x, y, width, height, dashes) {
      brush.setLineDash([]);
      brush.lineWidth = 3;
      brush.strokeStyle = "rgb(0 0 0 / .55)";
      brush.strokeRect(x, y, width, height);
      brush.setLineDash(dashes);
      brush.lineWidth = 1.5;
      brush.strokeStyle = "#fff";
      brush.strokeRect(x, y, width, height);
    }

    drawBar(map, { both, full }) {
      const brush = this.bar.getContext("2d"), image = brush.createImageData(this.bar.width, 1);
      const low = this.signed ? -map.high : 0;
      for (let x = 0; x < this.bar.width; x++) {
        const value = low + (x / (this.bar.width - 1)) * (map.high - low);
        const share = Math.min(1, Math.max(both ? -1 : 0, full > 0 ? value / full : 0));
        const index = 3 * Math.round(both ? ((share + 1) / 2) * 255 : share * 255), table = both ? signed : evidence;
        image.data.set([table[index], table[index + 1], table[index + 2], 255], 4 * x);
      }
      brush.putImageData(image, 0, 0);
    }

    // The same words as in the file that a reader without scripts sees.
    described() {
      const of = `${this.method.name} of ${this.row.classes[this.rank].name} for ${this.row.name}`;
      if (this.known.drawn) return `${of}, as its renderer draws it`;
      const map = this.map;
      if (!map.high) return `${of}: the map is blank`;
      const { column, row } = map.peakCell(), [left, top, right, bottom] = this.row.box, [width, height] = this.row.size;
      const across = (left + ((column + 0.5) / map.width) * (right - left)) / width;
      const down = (top + ((row + 0.5) / map.height) * (bottom - top)) / height;
      const words = [down < 1 / 3 ? "top" : down > 2 / 3 ? "bottom" : "", across < 1 / 3 ? "left" : across > 2 / 3 ? "right" : ""];
      const place = words.filter(Boolean).join(" ");
      return `${of}: the peak is ${place ? `at the ${place}` : "in the middle"} of the picture`;
    }

    tell() {
      if (!this.cell) {
        this.readout.textContent = "";
        return;
      }
      const map = this.map;
      this.cell.column = Math.min(this.cell.column, map.width - 1);
      this.cell.row = Math.min(this.cell.row, map.height - 1);
      const { column, row } = this.cell, byte = map.bytes[row * map.width + column];
      const value = number(map.value(byte));
      this.readout.textContent = `8-bit value ${byte} = ${value}`;
      this.where = `row ${row + 1} of ${map.height}, column ${column + 1} of ${map.width}`;
    }

    listen() {
      const point = (event) => {
        const place = this.canvas.getBoundingClientRect(), [left, top, right, bottom] = this.box, map = this.map;
        const x = ((event.clientX - place.left) * this.canvas.width) / place.width;
        const y = ((event.clientY - place.top) * this.canvas.height) / place.height;
        const column = Math.floor(((x - left) / (right - left)) * map.width);
        const row = Math.floor(((y - top) / (bottom - top)) * map.height);
        const inside = column >= 0 && row >= 0 && column < map.width && row < map.height;
        this.choose(inside ? { column, row } : null);
      };
      this.canvas.addEventListener("pointermove", point);
      this.canvas.addEventListener("pointerdown", point);
      this.canvas.addEventListener("pointerleave", () => this.choose(null));
      this.canvas.addEventListener("blur", () => this.choose(null));
      this.canvas.addEventListener("keydown", (event) => {
        const map = this.map, from = this.cell ?? map.peakCell();
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (event.ctrlKey || event.altKey || event.metaKey || (!step && event.key !== "Home" && event.key !== "Escape")) return;
        event.preventDefault();
        const held = (place, count) => Math.min(Math.max(place, 0), count - 1);
        if (event.key === "Escape") this.choose(null);
        else if (!step || !this.cell) this.choose(map.peakCell());
        else this.choose({ column: held(from.column + step[0], map.width), row: held(from.row + step[1], map.height) });
        told.textContent = this.cell ? `${this.readout.textContent}, ${this.where}` : "";
      });
    }

    choose(cell) {
      if (cell?.column === this.cell?.column && cell?.row === this.cell?.row) return;
      this.cell = cell;
      this.draw();
    }
  }

  const rows = [...document.querySelectorAll(".row")].map((section, number) => {
    const row = { ...data.rows[number], section, rank: 0, photograph: section.querySelector(".photograph img") };
    const [width, height] = row.size, edges = [0, 0, width, height];
    row.isWhole = row.box.every((side, each) => Math.abs(side - edges[each]) < 1);
    row.tiles = [...section.querySelectorAll(".tile")].map((figure, each) => new Tile(figure, row, data.methods[each], row.tiles[each]));
    const items = [...section.querySelectorAll(".classes li")];
    row.buttons = items.length < 2 ? [] : items.map((item, rank) => {
      const button = element("button");
      button.type = "button";
      button.append(...item.childNodes);
      item.append(button);
      button.addEventListener("click", () => {
        row.rank = rank;
        for (const radio of document.querySelectorAll("input[name=rank]")) radio.checked = rows.every((other) => other.rank === Number(radio.value));
        show([row]);
      });
      return button;
    });
    return row;
  });

  const show = (changed) => {
    for (const row of changed) {
      row.buttons.forEach((button, rank) => button.setAttribute("aria-pressed", String(rank === Math.min(row.rank, row.classes.length - 1))));
      for (const tile of row.tiles) if (tile.known.drawn || tile.maps) tile.draw();
    }
  };

  let waiting = false;
  const showAll = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      show(rows);
    });
  };

  const listen = (id, change) => {
    const control = byId(id);
    if (!control) return;
    control.addEventListener("input", () => {
      change(control);
      showAll();
    });
  };
  listen("opacity", (control) => {
    state.opacity = control.value / 100;
    document.querySelector("output[for=opacity]").textContent = `${control.value} %`;
  });
  listen("depth", (control) => {
    state.depth = Number(control.value);
    const name = data.depth[state.depth] ?? "the method’s own";
    byId("depth-told").textContent = name;
    control.setAttribute("aria-valuetext", name);
  });
  listen("full", (control) => (state.full = control.value));
  listen("only", (control) => (state.only = control.checked));
  for (const radio of document.querySelectorAll("input[name=rank]"))
    radio.addEventListener("input", () => {
      for (const row of rows) row.rank = Number(radio.value);
      showAll();
    });

  const open = async (row) => {
    await row.photograph?.decode();
    await Promise.all(row.tiles.map((tile) => tile.open()));
  };

  const begin = async () => {
    byId("depth")?.setAttribute("aria-valuetext", "the method’s own");
    for (const row of rows) row.near = row.section.getBoundingClientRect().top < 1.5 * innerHeight;
    show(rows);
    const watch = new IntersectionObserver((seen) => {
      for (const each of seen) {
        const row = rows[Number(each.target.dataset.row)];
        row.near = each.isIntersecting;
        if (row.near) for (const tile of row.tiles) if (tile.maps) tile.refresh();
      }
    }, { rootMargin: "50%" });
    await Promise.all(rows.filter((row) => row.near).map(open));
    if (controls) controls.hidden = false;
    document.documentElement.dataset.ready = "seen"; // what is seen can be used; the other pictures follow
    const rest = rows.filter((row) => !row.tiles.some((tile) => tile.maps));
    for (const row of rows) watch.observe(row.section);
    for (const row of rest) {
      await new Promise((resume) => setTimeout(resume));
      await open(row);
    }
    document.documentElement.dataset.ready = "yes";
  };
  addEventListener("beforeprint", () => {
    for (const row of rows) for (const tile of row.tiles) if (tile.maps) tile.refresh();
  });
  begin();
})();
