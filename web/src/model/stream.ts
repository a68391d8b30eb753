import { computed, signal } from "@preact/signals";
import { valueAt } from "../image/plane";
import { clampPan, type Crop, fit, type Size, type Viewport, visibleCrop } from "../image/viewport";
import { type Connection, Refused } from "../net/connection";
import type { Frame } from "../net/frame";
import type { At, Display, FrameIndex, Histogram, StreamAbout } from "../net/messages";
import { Contrast } from "./contrast";

/** Which frame of the past is asked for; `exact`: that one or none. */
export type Where = Partial<Record<"frame_id" | "number" | "fraction" | "utc_ms", number>> & { exact?: boolean; at?: At };

export type When = "live" | "paused" | "past";

const AT_MOST_HZ = 30;
const FIRST_CREDIT = 2;
/** At most so often it is asked which planes there are, while they come. */
const INDEX_MS = 500;

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
  /** The plane that is to be seen, of a layer with axes. */
  private plane: At | null = null;
  /** The place that `frame` is of, or that was found to have no plane. */
  seenAt: At | null = null;
  private seekingAt: { request: number; at: At } | null = null;
  /** Whether it belongs to what is seen: layers of other windows ask for nothing. */
  private parked: boolean;
  pane: Size = { width: 1, height: 1 };
  /** Whether the pane's size is known: before that, no part of a frame is asked for. */
  private measured = false;
  /** Frames that came and are not drawn yet: each gives a credit when it is. */
  private owed = 0;
  /** The newest frame that came, for a credit given before, while something else was looked at: it is not sent again. */
  private missed: Frame | null = null;
  private asked: Crop | null = null;
  private askTimer = 0;
  private indexTimer = 0;
  private seeking: Promise<void> | null = null;
  private nextSeek: Where | null = null;
  /** The place in the past that was asked for last. */
  private wish: Where | null = null;
  /** The place of what is seen among the frames that there are, where it is of the past. */
  private number: number | null = null;
  /** Which image of a plate is seen; none: there is nothing to choose. */
  private chosen: string | null = null;
  /** The first request for that image: what answers an older one is of another. */
  private since = 0;
  /** The histogram of a frame of the past, which comes before it. */
  private counted: Histogram | null = null;

  constructor(
    about: StreamAbout,
    scope: string,
    display: Display,
    private readonly link: Connection,
    private readonly changed: () => void,
  ) {
    this.about = signal(about);
    this.contrast = new Contrast(`contrast ${scope} ${about.title ?? about.name}`, about.range, about.index, display, about.look);
    this.parked = about.axes !== undefined;
    if (about.history === "dataset") this.when.value = "past";
  }

  private get levels(): number {
    return this.about.value.levels ?? 1;
  }

  get name(): string {
    return this.about.value.name;
  }

  /** What a person calls it. */
  get title(): string {
    return this.about.value.title ?? this.name;
  }

  /** Say all standing wishes, as after a connection was made. */
  begin(): void {
    this.owed = 0;
    this.asked = null;
    if (!this.visible.value || this.parked) return;
    this.link.send({ type: "histogram", stream: this.name, on: true });
    this.ask();
    if (this.when.value === "live") this.credit(FIRST_CREDIT);
    else if (this.about.value.axes) void (this.plane && this.seek({ at: this.plane }));
    else if (this.frame.value) void this.seek({ frame_id: this.frame.value.frameId });
    else if (this.when.value === "past") void this.seek({ number: 0 });
    void this.refreshIndex();
  }

  show(on: boolean): void {
    this.visible.value = on;
    if (on) this.begin();
    else this.link.send({ type: "histogram", stream: this.name, on: false });
  }

  /** See another image of a plate, at the place that is seen now. */
  async choose(image: string): Promise<void> {
    if (image === this.chosen) return;
    this.chosen = image;
    this.since = Infinity;
    this.number = null;
    this.index.value = null;
    const frame = this.frame.value;
    if (!this.visible.value) return;
    await Promise.all([this.seek(frame ? { frame_id: frame.frameId } : { number: 0 }), this.refreshIndex()]);
  }

  /** Whether it belongs to what is seen now. */
  park(on: boolean): void {
    if (this.parked === on) return;
    this.parked = on;
    if (on) this.link.send({ type: "histogram", stream: this.name, on: false });
    else this.begin();
  }

  /** Show the plane at a value of each axis, or nothing where it has not come. */
  goTo(at: At): void {
    if (this.plane && sameAt(this.plane, at)) return;
    this.plane = at;
    if (!this.parked && this.visible.peek()) void this.seek({ at });
  }

  /** Some planes are others now; null: any of them may be. */
  refresh(planes: string[][] | null): void {
    if (this.parked || !this.visible.peek() || !this.plane) return;
    const here = JSON.stringify((this.about.peek().axes ?? []).map((axis) => this.plane?.[axis]));
    if (!planes || planes.some((each) => JSON.stringify(each) === here)) void this.seek({ at: this.plane });
    if (this.indexTimer) return;
    this.indexTimer = window.setTimeout(() => {
      this.indexTimer = 0;
      void this.refreshIndex();
    }, INDEX_MS);
  }

  /** Show the very plane that another channel shows, or nothing where this one lacks it. */
  follow(frameId: number): void {
    const there = this.frame.value?.frameId === frameId && !this.seeking;
    const asked = this.wish?.exact === true && this.wish.frame_id === frameId;
    if (!there && !asked) void this.seek({ frame_id: frameId, exact: true });
  }

  /** When the place of what is seen is known: a frame comes before the answer that tells it. */
  async settled(): Promise<void> {
    await this.seeking;
  }

  /** So many frames on among those that there are. */
  next(by: number): Where {
    if (this.number !== null) return { number: Math.max(0, this.number + by) };
    return { frame_id: Math.max(1, (this.frame.value?.frameId ?? 1) + by) };
  }

  hear(frame: Frame): void {
    if (!frame.fromHistory) this.owed++;
    else if (frame.request < this.since) return;
    if (!frame.fromHistory && this.when.value !== "live") {
      this.missed = frame;
      return;
    }
    const before = this.image.peek();
    this.frame.value = frame;
    if (this.seekingAt?.request === frame.request) this.seenAt = this.seekingAt.at;
    if (!frame.fromHistory) this.number = null;
    if (this.counted && this.counted.request === frame.request) this.contrast.hear(this.counted);
    this.counted = null;
    const after = this.image.peek();
    if (this.fitted.value && (before.width !== after.width || before.height !== after.height)) this.fit();
    this.changed();
  }

  /** That of the newest frame is of no use to who looks at another one; that of a frame of the past waits for it. */
  hearHistogram(histogram: Histogram): void {
    if (histogram.request) this.counted = histogram;
    else if (this.when.peek() === "live") this.contrast.hear(histogram);
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
  async seek(where: Where): Promise<void> {
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
        await this.seekOne(where);
      }
    } finally {
      this.seeking = null;
    }
  }

  private async seekOne(where: Where): Promise<void> {
    this.ask();
    const { id, reply } = this.link.numbered<{ number: number }>({ type: "seek", stream: this.name, ...where, ...this.choice });
    if (this.since === Infinity) this.since = id;
    this.seekingAt = where.at ? { request: id, at: where.at } : null;
    try {
      const { number } = await reply;
      if (id >= this.since) this.number = number;
      if (this.when.value === "paused") this.when.value = "past";
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.info(`seek in ${this.name}: ${error.message}`);
      // A field without a plane of this channel: what is seen is of another one.
      if (error.code === "unknown" && (where.exact || where.at || this.chosen !== null) && id >= this.since) {
        this.frame.value = null;
        this.seenAt = where.at ?? null;
      }
      this.changed();
    }
  }

  async refreshIndex(): Promise<void> {
    if (this.about.value.history === "none" || this.parked) return;
    try {
      this.index.value = await this.link.request<FrameIndex>({ type: "index", stream: this.name, ...this.choice });
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
    const past = this.when.value === "live" ? {} : this.seenAt ? { at: this.seenAt } : { frame_id: frame.frameId };
    const value = await this.link.request<{ frame_id: number; text: string }>({
      type: "pixel",
      stream: this.name,
      y: Math.floor(y),
      x: Math.floor(x),
      ...past,
      ...this.choice,
    });
    return { text: value.text, frameId: value.frame_id };
  }

  private get choice(): { image?: string } {
    return this.chosen === null ? {} : { image: this.chosen };
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
    const where = this.plane ? { at: this.plane } : frame && !this.seeking && this.since !== Infinity ? { frame_id: frame.frameId } : this.wish;
    if (where) void this.seek(where);
  }

  private ask(): boolean {
    window.clearTimeout(this.askTimer);
    if (!this.measured) return false;
    const crop = visibleCrop(this.view.value, this.pane, this.image.value, this.levels);
    const same = this.asked && (Object.keys(crop) as (keyof Crop)[]).every((key) => this.asked?.[key] === crop[key]);
    if (same) return false;
    this.asked = crop;
    const { y0, x0, y1, x1, step } = crop;
    this.link.send({ type: "view", stream: this.name, crop: [y0, x0, y1, x1], step, at_most_hz: AT_MOST_HZ, ...(this.levels > 1 ? { levels: true } : {}) });
    return true;
  }
}

export const sameAt = (one: At, other: At): boolean => {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
};

export function plain(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return Number.isFinite(value) ? String(Number(value.toPrecision(7))) : String(value);
}
