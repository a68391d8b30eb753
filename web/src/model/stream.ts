import { computed, signal } from "@preact/signals";
import { histogramOf } from "../image/histogram";
import { valueAt } from "../image/plane";
import { clampPan, type Crop, fit, type Size, type Viewport, visibleCrop } from "../image/viewport";
import { type Connection, Refused } from "../net/connection";
import type { Frame } from "../net/frame";
import type { Display, FrameIndex, Histogram, StreamAbout } from "../net/messages";
import { Contrast } from "./contrast";

export type When = "live" | "paused" | "past";

const AT_MOST_HZ = 30;
const FIRST_CREDIT = 2;

/** One stream as this client sees it: which part, which frame, with what contrast. */
export class StreamView {
  readonly about;
  readonly contrast: Contrast;
  readonly frame = signal<Frame | null>(null);
  readonly view = signal<Viewport>({ x: 0, y: 0, zoom: 1 });
  readonly fitted = signal(true);
  readonly when = signal<When>("live");
  readonly index = signal<FrameIndex | null>(null);
  readonly visible = signal(true);
  readonly image = computed<Size>(() => {
    const frame = this.frame.value;
    if (frame) return { width: frame.plane.frameWidth, height: frame.plane.frameHeight };
    const [height, width] = this.about.value.shape;
    return { width, height };
  });
  pane: Size = { width: 1, height: 1 };
  /** Whether the pane's size is known: before that, no part of a frame is asked for. */
  private measured = false;
  /** Frames that came and are not drawn yet: each gives a credit when it is. */
  private owed = 0;
  /** The newest frame that came, for a credit given before, while something else was looked at: it is not sent again. */
  private missed: Frame | null = null;
  private asked: Crop | null = null;
  private askTimer = 0;
  private seeking: Promise<void> | null = null;
  private nextSeek: Record<string, number> | null = null;
  /** The place in the past that was asked for last. */
  private wish: Record<string, number> | null = null;

  constructor(
    about: StreamAbout,
    scope: string,
    display: Display,
    private readonly link: Connection,
    private readonly changed: () => void,
  ) {
    this.about = signal(about);
    this.contrast = new Contrast(`contrast ${scope} ${about.name}`, about.range, about.index, display);
    if (about.history === "dataset") this.when.value = "past";
  }

  get name(): string {
    return this.about.value.name;
  }

  /** Say all standing wishes, as after a connection was made. */
  begin(): void {
    this.owed = 0;
    this.asked = null;
    if (!this.visible.value) return;
    this.link.send({ type: "histogram", stream: this.name, on: true });
    this.ask();
    if (this.when.value === "live") this.credit(FIRST_CREDIT);
    else if (this.frame.value) void this.seek({ frame_id: this.frame.value.frameId });
    else if (this.when.value === "past") void this.seek({ number: 0 });
    void this.refreshIndex();
  }

  show(on: boolean): void {
    this.visible.value = on;
    if (on) this.begin();
    else this.link.send({ type: "histogram", stream: this.name, on: false });
  }

  hear(frame: Frame): void {
    if (!frame.fromHistory) this.owed++;
    if (!frame.fromHistory && this.when.value !== "live") {
      this.missed = frame;
      return;
    }
    const before = this.image.peek();
    const other = this.frame.peek()?.frameId !== frame.frameId;
    this.frame.value = frame;
    // A frame of the past brings no histogram; to see another part of the same frame changes no contrast.
    const histogram = frame.fromHistory && other ? histogramOf(frame, this.name) : null;
    if (histogram) this.contrast.hear(histogram);
    const after = this.image.peek();
    if (this.fitted.value && (before.width !== after.width || before.height !== after.height)) this.fit();
    this.changed();
  }

  /** The histogram of the newest frame: of no use to who looks at another one. */
  hearHistogram(histogram: Histogram): void {
    if (this.when.peek() === "live") this.contrast.hear(histogram);
  }

  /** What was received is on the screen: the next may come. */
  drawn(): void {
    const owed = this.owed;
    this.owed = 0;
    if (owed && this.when.value === "live" && this.visible.value) this.credit(owed);
  }

  setPane(pane: Size): void {
    if (this.measured && pane.width === this.pane.width && pane.height === this.pane.height) return;
    this.pane = pane;
    this.measured = true;
    if (this.fitted.value) this.fit();
    else this.move(this.view.value);
  }

  fit(): void {
    this.fitted.value = true;
    this.view.value = fit(this.image.value, this.pane);
    this.later();
  }

  move(view: Viewport): void {
    this.fitted.value = false;
    this.view.value = clampPan(view, this.image.value);
    this.later();
  }

  pause(): void {
    if (this.when.value === "live") this.when.value = "paused";
    this.changed();
  }

  live(): void {
    if (this.about.value.history === "dataset" || this.when.value === "live") return;
    this.when.value = "live";
    // Credits that were given before the pause may have been used: to give too many is no harm, they are bounded.
    this.owed = 0;
    if (this.missed && this.missed.frameId > (this.frame.value?.frameId ?? 0)) this.frame.value = this.missed;
    this.missed = null;
    this.credit(FIRST_CREDIT);
    this.changed();
  }

  /** Show a frame of the past; while one is on its way only the newest wish is kept. */
  async seek(where: Record<string, number>): Promise<void> {
    if (this.about.value.history === "none") return;
    if (this.when.value === "live") this.when.value = "past";
    this.wish = where;
    if (!this.measured) return;
    this.nextSeek = where;
    this.seeking ??= this.seekAll();
    await this.seeking;
  }

  private async seekAll(): Promise<void> {
    try {
      while (this.nextSeek) {
        const where = this.nextSeek;
        this.nextSeek = null;
        this.ask();
        await this.link.request({ type: "seek", stream: this.name, ...where });
        if (this.when.value === "paused") this.when.value = "past";
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.code !== "superseded") console.info(`seek in ${this.name}: ${error.message}`);
    } finally {
      this.seeking = null;
    }
  }

  async refreshIndex(): Promise<void> {
    if (this.about.value.history === "none") return;
    try {
      this.index.value = await this.link.request<FrameIndex>({ type: "index", stream: this.name });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.info(`index of ${this.name}: ${error.message}`);
    }
  }

  /** The value at a place of the image: at once if that very pixel was sent as it is, else asked for. */
  async valueAt(x: number, y: number): Promise<{ text: string; frameId: number } | null> {
    const frame = this.frame.value;
    const { width, height } = this.image.value;
    if (!frame || x < 0 || y < 0 || x >= width || y >= height) return null;
    const { dtype } = this.about.value;
    if (["uint8", "uint16", "int8", "int16", "float32"].includes(dtype)) {
      const sent = valueAt(frame.plane, x, y);
      if (sent !== null) return { text: plain(sent * frame.scale + frame.offset), frameId: frame.frameId };
    }
    const past = this.when.value !== "live" ? { frame_id: frame.frameId } : {};
    const value = await this.link.request<{ frame_id: number; text: string }>({
      type: "pixel",
      stream: this.name,
      y: Math.floor(y),
      x: Math.floor(x),
      ...past,
    });
    return { text: value.text, frameId: value.frame_id };
  }

  private credit(frames: number): void {
    this.link.send({ type: "credit", stream: this.name, frames });
  }

  private later(): void {
    this.changed();
    window.clearTimeout(this.askTimer);
    this.askTimer = window.setTimeout(() => this.flush(), 40);
  }

  private flush(): void {
    if (!this.ask() || this.when.value === "live") return;
    const frame = this.frame.value;
    const where = frame && !this.seeking ? { frame_id: frame.frameId } : this.wish;
    if (where) void this.seek(where);
  }

  private ask(): boolean {
    window.clearTimeout(this.askTimer);
    if (!this.measured) return false;
    const crop = visibleCrop(this.view.value, this.pane, this.image.value);
    const same = this.asked && (Object.keys(crop) as (keyof Crop)[]).every((key) => this.asked?.[key] === crop[key]);
    if (same) return false;
    this.asked = crop;
    const { y0, x0, y1, x1, step } = crop;
    this.link.send({ type: "view", stream: this.name, crop: [y0, x0, y1, x1], step, at_most_hz: AT_MOST_HZ });
    return true;
  }
}

export function plain(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return Number.isFinite(value) ? String(Number(value.toPrecision(7))) : String(value);
}
