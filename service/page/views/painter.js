// Draws a mask over a photograph: brush, eraser, polygon, threshold fill, zoom, undo; also by keyboard alone.
import { number, t } from "../texts.js";
import { Dialog, html, useEffect, useRef, useState, useUnsent } from "../ui.js";

const COLOUR = [255, 0, 160]; // magenta: rare in metal, wood, textile and circuit boards
const TOOLS = { brush: "b", eraser: "e", polygon: "p", fill: "f", move: "h" };
const STEPS = 50;

// The mask of a picture, at the picture's own size, with what was done to it.
class Mask {
  constructor(image) {
    this.image = image;
    [this.width, this.height] = [image.width, image.height];
    this.canvas = this.blank();
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.penBefore = (this.before = this.blank()).getContext("2d", { willReadFrequently: true });
    this.pen.lineCap = this.pen.lineJoin = "round";
    this.done = [];
    this.undone = [];
  }

  blank() {
    return Object.assign(document.createElement("canvas"), { width: this.width, height: this.height });
  }

  pixels() {
    if (!this.grey) {
      const pen = this.blank().getContext("2d", { willReadFrequently: true });
      pen.drawImage(this.image, 0, 0);
      this.grey = pen.getImageData(0, 0, this.width, this.height).data;
    }
    return this.grey;
  }

  // White of a mask file, or whatever is not 0 in one of class numbers.
  load(picture) {
    const pen = this.blank().getContext("2d", { willReadFrequently: true });
    pen.drawImage(picture, 0, 0, this.width, this.height);
    const { data } = pen.getImageData(0, 0, this.width, this.height);
    let brightest = 0;
    for (let i = 0; i < data.length; i += 4) brightest = Math.max(brightest, data[i], data[i + 1], data[i + 2]);
    const least = brightest > 127 ? 127 : 0;
    this.put((i) => Math.max(data[4 * i], data[4 * i + 1], data[4 * i + 2]) > least);
  }

  put(covers) {
    const picture = this.pen.getImageData(0, 0, this.width, this.height);
    for (let i = 0; i < this.width * this.height; i++) if (covers(i)) picture.data.set([...COLOUR, 255], 4 * i);
    this.pen.putImageData(picture, 0, 0);
  }

  begin() {
    this.penBefore.clearRect(0, 0, this.width, this.height);
    this.penBefore.drawImage(this.canvas, 0, 0);
    this.touched = null;
  }

  touch(x, y, radius) {
    const [left, top, right, bottom] = this.touched || [x, y, x, y];
    this.touched = [Math.min(left, x - radius), Math.min(top, y - radius), Math.max(right, x + radius), Math.max(bottom, y + radius)];
  }

  // Keep what was under the change, and only there.
  end() {
    if (!this.touched) return;
    const left = Math.max(0, Math.floor(this.touched[0]) - 1);
    const top = Math.max(0, Math.floor(this.touched[1]) - 1);
    const width = Math.min(this.width, Math.ceil(this.touched[2]) + 1) - left;
    const height = Math.min(this.height, Math.ceil(this.touched[3]) + 1) - top;
    if (width <= 0 || height <= 0) return;
    const old = this.penBefore.getImageData(left, top, width, height);
    this.done.push({ left, top, old });
    if (this.done.length > STEPS) this.done.shift();
    this.undone = [];
  }

  swap(from, to) {
    const change = from.pop();
    if (!change) return;
    const now = this.pen.getImageData(change.left, change.top, change.old.width, change.old.height);
    this.pen.putImageData(change.old, change.left, change.top);
    to.push({ ...change, old: now });
  }

  undo() { this.swap(this.done, this.undone); }
  redo() { this.swap(this.undone, this.done); }

  whole(action) {
    this.begin();
    this.touched = [0, 0, this.width, this.height];
    action();
    this.end();
  }

  line(from, to, size, erase) {
    const { pen } = this;
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    pen.strokeStyle = pen.fillStyle = `rgb(${COLOUR})`;
    pen.lineWidth = size;
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
    for (const [x, y] of [from, to]) this.touch(x, y, size / 2);
  }

  polygon(points) {
    this.whole(() => {
      this.pen.fillStyle = `rgb(${COLOUR})`;
      this.pen.beginPath();
      points.forEach(([x, y], i) => (i ? this.pen.lineTo(x, y) : this.pen.moveTo(x, y)));
      this.pen.fill();
    });
  }

  // What touches the point and differs from it by no more than the tolerance, in grey levels.
  fill([x, y], tolerance) {
    const [w, h, data] = [this.width, this.height, this.pixels()];
    const start = Math.floor(y) * w + Math.floor(x);
    const own = data.slice(4 * start, 4 * start + 3);
    const alike = (i) => Math.max(Math.abs(data[4 * i] - own[0]), Math.abs(data[4 * i + 1] - own[1]), Math.abs(data[4 * i + 2] - own[2])) <= tolerance;
    const found = new Uint8Array(w * h);
    const open = [start];
    found[start] = 1;
    while (open.length) {
      const i = open.pop();
      const column = i % w;
      for (const [next, inside] of [[i - 1, column > 0], [i + 1, column < w - 1], [i - w, i >= w], [i + w, i < w * (h - 1)]]) {
        if (inside && !found[next] && alike(next)) { found[next] = 1; open.push(next); }
      }
    }
    this.whole(() => this.put((i) => found[i]));
  }

  clear() { this.whole(() => this.pen.clearRect(0, 0, this.width, this.height)); }

  covered() {
    const { data } = this.pen.getImageData(0, 0, this.width, this.height);
    let count = 0;
    for (let i = 3; i < data.length; i += 4) count += data[i] > 127;
    return count / (this.width * this.height);
  }

  // A PNG, white on black, without half-covered pixels.
  file() {
    const canvas = this.blank();
    const pen = canvas.getContext("2d");
    const { data } = this.pen.getImageData(0, 0, this.width, this.height);
    const picture = pen.createImageData(this.width, this.height);
    for (let i = 0; i < data.length; i += 4) picture.data.set(data[i + 3] > 127 ? [255, 255, 255, 255] : [0, 0, 0, 255], i);
    pen.putImageData(picture, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}

// `children` are shown below the tools; `save` says what is done with the mask.
export function Painter({ title, save, image, mask, onMask, onClose, onBroken, children }) {
  const canvas = useRef();
  const drawn = useRef(null);
  const view = useRef({ scale: 1, x: 0, y: 0 });
  const cursor = useRef(null);
  const corners = useRef([]);
  const pointer = useRef(null);
  const hover = useRef(null);
  const [tool, setTool] = useState("brush");
  const [size, setSize] = useState(12);
  const [tolerance, setTolerance] = useState(24);
  const [covered, setCovered] = useState(0);
  const now = useRef({});
  now.current = { tool, size, tolerance };
  const isChanged = () => Boolean(drawn.current?.done.length || corners.current.length);
  useUnsent(isChanged);
  const leave = () => { if (!isChanged() || confirm(t("strokes_really"))) onClose(); };

  const draw = () => {
    const target = canvas.current;
    if (!target || !drawn.current) return;
    const ratio = devicePixelRatio || 1;
    const { clientWidth: w, clientHeight: h } = target;
    if (target.width !== Math.round(w * ratio) || target.height !== Math.round(h * ratio)) Object.assign(target, { width: Math.round(w * ratio), height: Math.round(h * ratio) });
    const pen = target.getContext("2d");
    const { scale, x, y } = view.current;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, target.width, target.height);
    pen.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
    pen.imageSmoothingEnabled = scale < 2;
    pen.drawImage(drawn.current.image, 0, 0);
    pen.globalAlpha = 0.5;
    pen.drawImage(drawn.current.canvas, 0, 0);
    pen.globalAlpha = 1;
    pen.lineWidth = 1.5 / scale;
    pen.strokeStyle = `rgb(${COLOUR})`;
    if (corners.current.length) {
      pen.beginPath();
      [...corners.current, ...(hover.current ? [hover.current] : [])].forEach(([px, py], i) => (i ? pen.lineTo(px, py) : pen.moveTo(px, py)));
      pen.stroke();
      pen.strokeRect(corners.current[0][0] - 4 / scale, corners.current[0][1] - 4 / scale, 8 / scale, 8 / scale);
    }
    const at = cursor.current || hover.current;
    if (at && ["brush", "eraser"].includes(now.current.tool)) {
      for (const [colour, extra] of [["#000", 0], ["#fff", 1 / scale]]) {
        pen.strokeStyle = colour;
        pen.beginPath();
        pen.arc(at[0], at[1], now.current.size / 2 + extra, 0, 7);
        pen.stroke();
      }
    } else if (cursor.current) {
      pen.strokeStyle = "#fff";
      pen.strokeRect(at[0] - 5 / scale, at[1] - 5 / scale, 10 / scale, 10 / scale);
    }
  };
  const redraw = () => requestAnimationFrame(draw);
  const measure = () => { setCovered(drawn.current.covered()); redraw(); };
  const fit = () => {
    const { clientWidth: w, clientHeight: h } = canvas.current;
    const scale = Math.min(w / drawn.current.width, h / drawn.current.height) * 0.96;
    view.current = { scale, x: (w - scale * drawn.current.width) / 2, y: (h - scale * drawn.current.height) / 2 };
    redraw();
  };
  const zoom = (factor, cx = canvas.current.clientWidth / 2, cy = canvas.current.clientHeight / 2) => {
    const { scale, x, y } = view.current;
    const next = Math.min(40, Math.max(0.02, scale * factor));
    view.current = { scale: next, x: cx - ((cx - x) * next) / scale, y: cy - ((cy - y) * next) / scale };
    redraw();
  };

  useEffect(() => {
    let alive = true;
    (async () => {
      try {
        const picture = await createImageBitmap(image);
        const before = mask ? await createImageBitmap(mask).catch(() => null) : null;
        if (!alive) return;
        drawn.current = new Mask(picture);
        if (before) drawn.current.load(before);
        setSize(Math.max(2, Math.round(Math.max(picture.width, picture.height) / 40)));
        fit();
        measure();
        canvas.current.focus();
      } catch {
        if (alive) onBroken();
      }
    })();
    const watcher = new ResizeObserver(redraw);
    watcher.observe(canvas.current);
    return () => { alive = false; watcher.disconnect(); };
  }, []);
  useEffect(redraw);

  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const { scale, x, y } = view.current;
    return [(event.clientX - box.left - x) / scale, (event.clientY - box.top - y) / scale];
  };
  const within = ([x, y]) => x >= 0 && y >= 0 && x < drawn.current.width && y < drawn.current.height;
  const close = () => {
    if (corners.current.length > 2) drawn.current.polygon(corners.current);
    corners.current = [];
    measure();
  };
  const use = (at) => {
    if (tool === "fill" && within(at)) { drawn.current.fill(at, tolerance); measure(); }
    if (tool === "polygon") {
      const [first] = corners.current;
      if (corners.current.length > 2 && Math.hypot(first[0] - at[0], first[1] - at[1]) * view.current.scale < 8) close();
      else { corners.current = [...corners.current, at]; redraw(); }
    }
    if (["brush", "eraser"].includes(tool)) {
      drawn.current.begin();
      drawn.current.line(at, at, size, tool === "eraser");
    }
  };

  const down = (event) => {
    if (!drawn.current || event.button > 1) return;
    canvas.current.setPointerCapture(event.pointerId);
    cursor.current = null;
    const at = place(event);
    const moving = tool === "move" || event.button === 1;
    pointer.current = { at, moving, screen: [event.clientX, event.clientY] };
    if (!moving) use(at);
    redraw();
  };
  const move = (event) => {
    hover.current = place(event);
    if (pointer.current?.moving) {
      const [x, y] = pointer.current.screen;
      view.current = { ...view.current, x: view.current.x + event.clientX - x, y: view.current.y + event.clientY - y };
      pointer.current.screen = [event.clientX, event.clientY];
    } else if (pointer.current && ["brush", "eraser"].includes(tool)) {
      for (const each of event.getCoalescedEvents?.() || [event]) {
        const at = place(each);
        drawn.current.line(pointer.current.at, at, size, tool === "eraser");
        pointer.current.at = at;
      }
    }
    redraw();
  };
  const up = () => {
    if (pointer.current && !pointer.current.moving && ["brush", "eraser"].includes(tool)) { drawn.current.end(); measure(); }
    pointer.current = null;
  };
  const wheel = (event) => {
    event.preventDefault();
    const box = canvas.current.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  };
  const undo = () => { drawn.current.undo(); measure(); };
  const redo = () => { drawn.current.redo(); measure(); };
  const keys = (event) => {
    if (!drawn.current) return;
    const pressed = event.key.toLowerCase();
    const arrows = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[pressed];
    const picked = Object.keys(TOOLS).find((name) => TOOLS[name] === pressed);
    if ((event.ctrlKey || event.metaKey) && pressed === "z") (event.shiftKey ? redo : undo)();
    else if ((event.ctrlKey || event.metaKey) && pressed === "y") redo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (arrows) {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(size / 3));
      const [x, y] = cursor.current || [drawn.current.width / 2, drawn.current.height / 2];
      cursor.current = [Math.min(drawn.current.width - 1, Math.max(0, x + step * arrows[0])), Math.min(drawn.current.height - 1, Math.max(0, y + step * arrows[1]))];
      redraw();
    } else if (pressed === " " && cursor.current) {
      use(cursor.current);
      if (["brush", "eraser"].includes(tool)) { drawn.current.end(); measure(); }
    } else if (pressed === "enter" && corners.current.length) close();
    else if (pressed === "+" || pressed === "=") zoom(1.25);
    else if (pressed === "-") zoom(0.8);
    else if (pressed === "[") setSize(Math.max(1, size - Math.ceil(size / 8)));
    else if (pressed === "]") setSize(size + Math.ceil(size / 8));
    else if (picked) { setTool(picked); corners.current = []; }
    else return;
    event.preventDefault();
  };

  const pressed = (event) => {
    const { tagName } = event.target;
    if (tagName === "INPUT" && event.key === "Enter") event.preventDefault(); // it would send the form that the painter lies in
    if (tagName !== "INPUT" && tagName !== "BUTTON") keys(event);
  };

  return html`<${Dialog} title=${title} onClose=${leave} wide=${true}>
    <div class="painter" onKeyDown=${pressed}>
      <div class="tools" role="toolbar" aria-label=${t("mask")}>
        ${Object.keys(TOOLS).map((name) => html`<button type="button" key=${name} class="small ${tool === name ? "" : "outline"}" aria-pressed=${tool === name} title=${`${t(name)} (${TOOLS[name].toUpperCase()})`}
          onClick=${() => { setTool(name); corners.current = []; redraw(); }}>${t(name)}</button>`)}
        ${["brush", "eraser"].includes(tool) && html`<label>${t("brush_size")} <input type="range" min="1" max="200" value=${size} onInput=${(event) => setSize(Number(event.target.value))} /></label>`}
        ${tool === "fill" && html`<label>${t("tolerance")} <input type="range" min="0" max="128" value=${tolerance} onInput=${(event) => setTolerance(Number(event.target.value))} /></label>`}
        <button type="button" class="small outline secondary" onClick=${undo}>${t("undo")}</button><button type="button" class="small outline secondary" onClick=${redo}>${t("redo")}</button>
        <button type="button" class="small outline secondary" onClick=${() => { drawn.current.clear(); measure(); }}>${t("clear")}</button>
        <button type="button" class="small outline secondary" aria-label=${t("zoom_out")} onClick=${() => zoom(0.8)}>−</button><button type="button" class="small outline secondary" aria-label=${t("zoom_in")} onClick=${() => zoom(1.25)}>+</button>
        <button type="button" class="small outline secondary" onClick=${fit}>${t("fit")}</button>
      </div>
      ${children}
      <canvas ref=${canvas} tabindex="0" role="application" aria-label=${title} aria-describedby="painter-help" onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up}
        onPointerLeave=${() => { hover.current = null; redraw(); }} onWheel=${wheel} onDblClick=${() => tool === "polygon" && close()}></canvas>
      <p id="painter-help"><small>${tool === "fill" ? t("fill_help") : tool === "polygon" ? t("polygon_help") : t("type_keys")}</small></p>
      <footer><span role="status">${t("mask")}: ${number(100 * covered)} %</span>
        <button type="button" class="secondary outline" onClick=${leave}>${t("cancel")}</button>
        <button type="button" disabled=${covered === 0} onClick=${async () => onMask(await drawn.current.file())}>${save || t("save_mask")}</button></footer>
    </div>
  <//>`;
}
