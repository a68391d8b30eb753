import { effect, signal, untracked } from "@preact/signals";
import { grid, Pen, SERIES } from "../image/overlay";
import { type Pane, Renderer } from "../image/renderer";
import type { Window } from "../image/rule";
import { nextLevel, type Rect, toImage, zoomAbout } from "../image/viewport";
import type { ScopeView } from "../model/scope";
import { keyOfRoi } from "../model/rois";
import { plain, type StreamView } from "../model/stream";
import { marksAt, type TableView } from "../model/tables";
import type { Frame } from "../net/frame";
import { RoiTools } from "./tools";

export type Layout = "side" | "over";

export interface Readout {
  x: number;
  y: number;
  stream: string;
  text: string;
}

/** Which tables are drawn over the images, and how. */
export interface OverlayChoice {
  on: boolean;
  ids: boolean;
  tails: boolean;
  frames: number;
}

/** How long a frame took from the camera to the socket and to the canvas. */
export interface Watched {
  frameId: number;
  drawnAtMs: number;
  canvasMs: number;
  socketMs: number;
}

const SLACK_CSS = 6;
/** `--ground` of the style sheet. */
const GROUND = [12, 15, 18] as const;
const GAP_CSS = 6;

/** The images: what is drawn where, and what mouse and keys do there. */
export class Stage {
  readonly layout = signal<Layout>("side");
  /** Whether cameras side by side show the same part, where their images are alike. */
  readonly linked = signal(true);
  readonly readout = signal<Readout | null>(null);
  readonly latencyMs = signal<number | null>(null);
  readonly shownHz = signal(0);
  readonly overlays = signal<Readonly<Record<string, OverlayChoice>>>({});
  readonly showRois = signal(true);
  readonly showScaleBar = signal(true);
  readonly tools: RoiTools;
  readonly failure = signal("");
  private renderer: Renderer | null = null;
  private vectors: HTMLCanvasElement | null = null;
  private box: HTMLElement | null = null;
  private asked = false;
  private ratio = 1;
  private panes: { rect: Rect; streams: StreamView[] }[] = [];
  private pointers = new Map<number, { x: number; y: number }>();
  private panning: StreamView | null = null;
  private cursor: { x: number; y: number } | null = null;
  private reading = false;
  private latencies: number[] = [];
  private drawTimes: number[] = [];
  private lastDrawn = new Map<string, Frame>();
  /** When the first frame was drawn, by `performance.now()`. */
  firstFrameMs: number | null = null;
  /** For measurements: what is noted of each live frame that is drawn, and how many are wanted. */
  watched: Watched[] = [];
  watching = 0;

  setLayout(layout: Layout): void {
    this.layout.value = layout;
    for (const stream of layout === "over" ? this.scope.shown.peek() : this.scope.listed.peek()) stream.contrast.tint(layout === "over");
  }

  constructor(readonly scope: ScopeView) {
    this.tools = new RoiTools(scope);
    scope.redraw = () => this.request();
    effect(() => {
      const wanted = scope.hello.value?.display?.overlays ?? [];
      const tables = scope.tables.value.filter(({ about }) => about.overlay && wanted.includes(about.name));
      untracked(() => {
        for (const table of tables) if (!this.overlays.value[table.about.name]) this.overlay(table, { on: true });
      });
    });
    let begun = false;
    effect(() => {
      const display = scope.hello.value?.display;
      if (begun || !scope.hello.value || (scope.viewer.value && !scope.streams.value.length)) return;
      begun = true;
      if (display?.source === "layer") untracked(() => this.setLayout("over"));
    });
    // What changes where things are.
    effect(() => {
      void this.layout.value;
      void this.linked.value;
      void scope.shown.value;
      void scope.active.value;
      this.arrange();
    });
    // What changes how they look.
    effect(() => {
      void this.overlays.value;
      void this.showRois.value;
      void this.showScaleBar.value;
      void scope.rois.selected.value;
      void scope.layers.rois.value;
      for (const stream of scope.streams.value) {
        void stream.contrast.look.value;
        void stream.about.value;
      }
      this.request();
    });
  }

  choice(table: TableView): OverlayChoice {
    return this.overlays.value[table.about.name] ?? { on: false, ids: true, tails: true, frames: 30 };
  }

  /** Change how a table is drawn over the images. */
  overlay(table: TableView, part: Partial<OverlayChoice>): void {
    const next = { ...this.choice(table), ...part };
    this.overlays.value = { ...this.overlays.value, [table.about.name]: next };
    table.use("overlay", next.on ? { rows: 20000, hz: 30 } : null);
  }

  /** Use these elements from now on. Returns what ends it. */
  attach(box: HTMLElement, image: HTMLCanvasElement, overlay: HTMLCanvasElement): () => void {
    this.box = box;
    this.vectors = overlay;
    try {
      this.renderer = new Renderer(image, (lost) => this.lost(lost), GROUND);
    } catch (error) {
      this.failure.value = error instanceof Error ? error.message : String(error);
    }
    const observer = new ResizeObserver(() => this.arrange());
    observer.observe(box);
    const over = new AbortController();
    const { signal } = over;
    this.watchSharpness(signal);
    overlay.addEventListener("wheel", this.onWheel, { passive: false, signal });
    overlay.addEventListener("pointerdown", this.onDown, { signal });
    overlay.addEventListener("pointermove", this.onMove, { signal });
    overlay.addEventListener("pointerup", this.onUp, { signal });
    overlay.addEventListener("pointercancel", this.onUp, { signal });
    overlay.addEventListener("pointerleave", this.onLeave, { signal });
    overlay.addEventListener("dblclick", this.onDouble, { signal });
    this.arrange();
    return () => {
      observer.disconnect();
      over.abort();
    };
  }

  /** A window that comes to a screen with more or fewer device pixels keeps its size otherwise. */
  private watchSharpness(over: AbortSignal): void {
    const same = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    const changed = (): void => {
      this.request();
      this.watchSharpness(over);
    };
    same.addEventListener("change", changed, { once: true, signal: over });
  }

  private lost(lost: boolean): void {
    this.failure.value = lost ? "The graphics card went away: the image is drawn again when it is back." : "";
    this.request();
  }

  request(): void {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw();
    });
  }

  /** Lay the panes out anew. */
  arrange(): void {
    const { box, vectors, renderer } = this;
    if (!box || !vectors) return;
    this.ratio = window.devicePixelRatio;
    const width = Math.max(1, Math.round(box.clientWidth * this.ratio));
    const height = Math.max(1, Math.round(box.clientHeight * this.ratio));
    for (const canvas of [renderer?.canvas, vectors]) {
      if (canvas && (canvas.width !== width || canvas.height !== height)) Object.assign(canvas, { width, height });
    }
    const shown = this.scope.shown.peek();
    const over = this.layout.peek() === "over" && shown.length > 1;
    const rects = grid(over ? 1 : shown.length, { width, height }, Math.round(GAP_CSS * this.ratio));
    this.panes = rects.map((rect, index) => ({ rect, streams: over ? shown : shown.slice(index, index + 1) }));
    for (const pane of this.panes) for (const stream of pane.streams) stream.setPane({ width: pane.rect.width, height: pane.rect.height });
    this.unite(this.leader(shown));
    this.request();
  }

  private leader(streams: readonly StreamView[]): StreamView | null {
    const active = this.scope.active.peek();
    return active && streams.includes(active) ? active : (streams[0] ?? null);
  }

  /** Images that lie over each other show the same part; those beside each other if they are linked and alike. */
  private unite(leader: StreamView | null): void {
    if (!leader) return;
    const over = this.layout.peek() === "over";
    for (const each of this.scope.shown.peek()) {
      if (each === leader || !(over || (this.linked.peek() && alike(each, leader)))) continue;
      const { x, y, zoom } = each.view.peek();
      const to = leader.view.peek();
      if (x === to.x && y === to.y && zoom === to.zoom) continue;
      if (leader.fitted.peek() && !over) each.fit();
      else each.move(to);
    }
  }

  /** Whether there is anything that can be linked. */
  get linkable(): boolean {
    const shown = this.scope.shown.value;
    return shown.some((each, index) => shown.slice(index + 1).some((other) => alike(each, other)));
  }

  draw(): void {
    const { renderer } = this;
    if (!renderer) return;
    if (window.devicePixelRatio !== this.ratio) this.arrange();
    const panes: Pane[] = this.panes.map(({ rect, streams }) => ({
      rect,
      view: (this.leader(streams) ?? streams[0])!.view.peek(),
      layers: streams.filter((each) => each.frame.peek()).map((each) => each.name),
    }));
    for (const { streams } of this.panes) {
      for (const stream of streams) {
        const frame = stream.frame.peek();
        if (!frame) continue;
        renderer.setPlane(stream.name, frame.plane);
        renderer.setLook(stream.name, sentWindow(stream.contrast.window, frame), stream.contrast.look.peek().lut);
      }
    }
    renderer.keep(new Set(this.scope.streams.peek().map(({ name }) => name)));
    renderer.draw(panes);
    this.drawOverlay();
    this.account();
    void this.read();
  }

  private account(): void {
    const now = performance.now();
    for (const stream of this.scope.shown.peek()) {
      const frame = stream.frame.peek();
      stream.drawn();
      if (!frame || this.lastDrawn.get(stream.name) === frame) continue;
      this.lastDrawn.set(stream.name, frame);
      this.firstFrameMs ??= now;
      if (stream !== this.scope.active.peek() || frame.fromHistory) continue;
      this.drawTimes.push(now);
      while (this.drawTimes.length && this.drawTimes[0]! < now - 2000) this.drawTimes.shift();
      const latency = this.scope.since(frame.monotonicNs);
      if (latency === null) continue;
      this.latencies.push(latency);
      if (this.watched.length >= this.watching) continue;
      const socketMs = Number(frame.sentNs - frame.monotonicNs) / 1e6;
      this.watched.push({ frameId: frame.frameId, drawnAtMs: now, canvasMs: latency, socketMs });
    }
    if (this.latencies.length >= 15) {
      this.latencies.sort((a, b) => a - b);
      this.latencyMs.value = this.latencies[this.latencies.length >> 1] ?? null;
      this.shownHz.value = this.drawTimes.length / 2;
      this.latencies = [];
    }
  }

  private drawOverlay(): void {
    const context = this.vectors?.getContext("2d");
    if (!context || !this.vectors) return;
    context.clearRect(0, 0, this.vectors.width, this.vectors.height);
    const many = this.scope.listed.peek().length > 1;
    for (const { rect, streams } of this.panes) {
      const leader = this.leader(streams);
      if (!leader) continue;
      const pen = new Pen(context, rect, leader.view.peek(), this.ratio);
      pen.begin();
      for (const stream of streams) {
        const frame = stream.frame.peek();
        if (frame) this.drawTables(pen, stream, frame);
        if (this.showRois.peek()) {
          const selected = this.scope.rois.selected.peek();
          const draft = this.scope.rois.draft.peek();
          for (const placed of this.scope.rois.of(stream.name)) {
            pen.roi(placed, keyOfRoi(placed) === selected, placed === draft);
          }
        }
      }
      if (this.showRois.peek()) {
        for (const roi of this.scope.layers.shown(streams)) pen.roi({ stream: leader.name, revision: 0, roi }, false, false);
      }
      if (this.showScaleBar.peek() && leader.frame.peek()) pen.scaleBar(leader.about.peek().pixel_size_um);
      if (many) pen.label(streams.map((each) => (each.frame.peek() ? each.title : `${each.title} (${this.scope.viewer.peek() ? "missing" : "none"})`)).join(" + "));
      pen.end();
    }
  }

  private drawTables(pen: Pen, stream: StreamView, frame: Frame): void {
    const { frameId } = frame;
    const shown = { stream: stream.name, frameId, utcS: frame.utcMs / 1e3, rateHz: stream.about.peek().rate_hz || NaN };
    const live = stream.when.peek() === "live";
    this.scope.tables.peek().forEach((table, number) => {
      if (!table.used || (this.scope.streamOf(table.about) ?? stream.name) !== stream.name) return;
      const choice = this.choice(table);
      const tail = choice.tails ? choice.frames : 0;
      const columns = live ? table.columns : table.columnsFor(shown, tail);
      if (choice.on && table.about.overlay && columns) pen.marks(marksAt(table, frameId, tail, columns), SERIES[number % SERIES.length]!, choice);
    });
  }

  /** Refresh the value under the cursor; one question at a time. */
  private async read(): Promise<void> {
    if (this.reading || !this.cursor) return;
    const found = this.at(this.cursor.x, this.cursor.y);
    if (!found) return;
    this.reading = true;
    try {
      const value = await found.stream.valueAt(found.x, found.y);
      this.readout.value = value && { x: Math.floor(found.x), y: Math.floor(found.y), stream: found.stream.title, text: value.text };
    } catch (error) {
      this.readout.value = null;
      console.info("no value under the cursor:", error);
    } finally {
      this.reading = false;
    }
  }

  /** The stream and the place in its image (corner coordinates) at device pixels of the canvas. */
  private at(x: number, y: number): { stream: StreamView; pane: Rect; x: number; y: number } | null {
    for (const { rect, streams } of this.panes) {
      if (x < rect.x || y < rect.y || x >= rect.x + rect.width || y >= rect.y + rect.height) continue;
      const stream = this.leader(streams);
      if (!stream) return null;
      return { stream, pane: rect, ...toImage(stream.view.peek(), rect, x - rect.x, y - rect.y) };
    }
    return null;
  }

  private spot(event: MouseEvent): { x: number; y: number } {
    const box = this.vectors!.getBoundingClientRect();
    return { x: (event.clientX - box.left) * this.ratio, y: (event.clientY - box.top) * this.ratio };
  }

  zoom(inwards: boolean): void {
    const stream = this.scope.active.peek();
    if (stream) this.zoomTo(stream, nextLevel(stream.view.peek().zoom / this.ratio, inwards) * this.ratio);
  }

  oneToOne(): void {
    const stream = this.scope.active.peek();
    if (stream) this.zoomTo(stream, this.ratio);
  }

  fit(): void {
    for (const stream of this.scope.shown.peek()) stream.fit();
    this.unite(this.leader(this.scope.shown.peek()));
  }

  pan(dx: number, dy: number): void {
    const stream = this.scope.active.peek();
    if (!stream) return;
    const view = stream.view.peek();
    stream.move({ ...view, x: view.x + dx / view.zoom, y: view.y + dy / view.zoom });
    this.unite(stream);
  }

  private zoomTo(stream: StreamView, zoom: number, x = stream.pane.width / 2, y = stream.pane.height / 2): void {
    stream.move(zoomAbout(stream.view.peek(), stream.pane, zoom, x, y));
    this.unite(stream);
  }

  private readonly onWheel = (event: WheelEvent): void => {
    event.preventDefault();
    const { x, y } = this.spot(event);
    const found = this.at(x, y);
    if (!found) return;
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1;
    const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002));
    this.zoomTo(found.stream, found.stream.view.peek().zoom * factor, x - found.pane.x, y - found.pane.y);
  };

  private readonly onDown = (event: PointerEvent): void => {
    const spot = this.spot(event);
    const found = this.at(spot.x, spot.y);
    if (!found) return;
    this.vectors!.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, spot);
    this.scope.activeName.value = found.stream.name;
    if (this.pointers.size > 1) {
      this.tools.cancel();
      this.panning = found.stream;
      return;
    }
    const slack = (SLACK_CSS * this.ratio) / found.stream.view.peek().zoom;
    const forTools = event.button === 0 && this.tools.press(found.stream, found.x, found.y, slack);
    this.panning = forTools ? null : found.stream;
  };

  private readonly onMove = (event: PointerEvent): void => {
    const spot = this.spot(event);
    const before = this.pointers.get(event.pointerId);
    this.cursor = spot;
    const stream = this.panning;
    if (before && stream) {
      const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const other = others[0];
      const view = stream.view.peek();
      if (other) {
        const pane = this.panes.find((each) => each.streams.includes(stream))!.rect;
        const factor = Math.hypot(spot.x - other.x, spot.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
        // What was between the fingers stays between them.
        const next = zoomAbout(view, pane, view.zoom * factor, (before.x + other.x) / 2 - pane.x, (before.y + other.y) / 2 - pane.y);
        stream.move({ ...next, x: next.x - (spot.x - before.x) / 2 / next.zoom, y: next.y - (spot.y - before.y) / 2 / next.zoom });
        this.unite(stream);
      } else {
        stream.move({ ...view, x: view.x - (spot.x - before.x) / view.zoom, y: view.y - (spot.y - before.y) / view.zoom });
        this.unite(stream);
      }
      this.pointers.set(event.pointerId, spot);
    } else {
      const active = this.tools.busy ? this.scope.active.peek() : null;
      const pane = active && this.panes.find((each) => each.streams.includes(active))?.rect;
      if (active && pane) {
        const place = toImage(active.view.peek(), pane, spot.x - pane.x, spot.y - pane.y);
        this.tools.hover(active, place.x, place.y);
      }
    }
    void this.read();
  };

  private readonly onUp = (event: PointerEvent): void => {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size === 0) this.panning = null;
    const active = this.scope.active.peek();
    const pane = active && this.panes.find((each) => each.streams.includes(active))?.rect;
    if (!active || !pane) return;
    const spot = this.spot(event);
    const place = toImage(active.view.peek(), pane, spot.x - pane.x, spot.y - pane.y);
    this.tools.release(place.x, place.y);
  };

  private readonly onLeave = (): void => {
    this.cursor = null;
    this.readout.value = null;
  };

  private readonly onDouble = (): void => {
    const active = this.scope.active.peek();
    if (active && this.tools.tool.peek() === "polygon") this.tools.close(active.name);
  };

  /** What is seen, as a picture with its overlays. */
  async picture(): Promise<Blob> {
    return this.painted().canvas.convertToBlob({ type: "image/png" });
  }

  /** The same as colours, RGBA row by row. */
  colours(): ImageData {
    const context = this.painted();
    return context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  }

  private painted(): OffscreenCanvasRenderingContext2D {
    this.draw();
    const image = this.renderer!.canvas;
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d")!;
    context.drawImage(image, 0, 0);
    context.drawImage(this.vectors!, 0, 0);
    return context;
  }

  /** For scripts in the console and for tests: what one stream shows just now, pixel by pixel, without overlays. */
  look(name: string): Record<string, unknown> | null {
    const pane = this.panes.find((each) => each.streams.some((stream) => stream.name === name));
    const stream = this.scope.stream(name);
    const frame = stream?.frame.peek();
    if (!pane || !stream || !frame || !this.renderer) return null;
    this.draw();
    const { lo, hi, gamma, lut } = stream.contrast.look.peek();
    const pixels = this.renderer.read(pane.rect);
    const { data: _data, ...crop } = frame.plane;
    return { frameId: frame.frameId, at: stream.seenAt, pane: pane.rect, view: stream.view.peek(), crop, lo, hi, gamma, lut, rgba: base64(pixels) };
  }

  /** For the same: the pixels of a stream as they came, and the place that they are of; without them where none came. */
  pixels(name: string): Record<string, unknown> | null {
    const stream = this.scope.stream(name);
    if (!stream) return null;
    const frame = stream.frame.peek();
    if (!frame) return { at: stream.seenAt };
    const { data, ...crop } = frame.plane;
    const sent = base64(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return { at: stream.seenAt, crop, scale: frame.scale, offset: frame.offset, sent };
  }
}

function base64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 32768) binary += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(binary);
}

/** Whether one pixel of two images is the same place: of equal shape and, as far as that is told, equal size of a pixel. */
function alike(one: StreamView, other: StreamView): boolean {
  const [a, b] = [one.about.value, other.about.value];
  return a.shape[0] === b.shape[0] && a.shape[1] === b.shape[1] && a.pixel_size_um === b.pixel_size_um;
}

function sentWindow(window: Window, frame: Frame): Window {
  if (frame.scale === 1 && frame.offset === 0) return window;
  return { lo: (window.lo - frame.offset) / frame.scale, hi: (window.hi - frame.offset) / frame.scale, gamma: window.gamma };
}

export const zoomText = (zoom: number): string => `${plain(Number((zoom * 100).toPrecision(3)))} %`;
