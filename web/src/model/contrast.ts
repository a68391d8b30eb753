import { signal } from "@preact/signals";
import type { Window } from "../image/rule";
import { LUT_NAMES } from "../image/luts";
import type { Display, Histogram, SentLook } from "../net/messages";
import { recall, remember } from "./memory";

export type Mode = "auto" | "percentile" | "hand" | "sent";

/** How one client shows one stream: nothing of it is told to the scope or to other clients. */
export interface Look {
  mode: Mode;
  lo: number;
  hi: number;
  gamma: number;
  lut: string;
  /** Percentiles of the mode of that name. */
  low: number;
  high: number;
}

export const PERCENTILES: readonly [number, number][] = [
  [0, 100],
  [0.1, 99.9],
  [0.35, 99.65],
  [1, 99],
  [2, 98],
  [5, 95],
];

const CHANNEL_LUTS = ["green", "magenta", "cyan", "yellow", "orange", "blue"];

export class Contrast {
  readonly look;
  readonly histogram = signal<Histogram | null>(null);
  /** While a handle is dragged, nothing else moves it. */
  held = false;
  /** The colour that it has only because it lies over others. */
  private tinted: string | null = null;
  /** The limits that came with the images. */
  readonly sent = signal<readonly [number, number] | null>(null);

  constructor(
    private readonly key: string,
    range: [number, number] | null,
    private readonly position: number,
    display: Display,
    private readonly wanted: SentLook = {},
  ) {
    const [lo, hi] = range ?? [0, 1];
    this.look = signal<Look>({ mode: "auto", lo, hi, gamma: 1, lut: "grays", low: 1, high: 99, ...told(display), ...sentLook(wanted), ...remembered(key) });
  }

  /** Images over each other are told apart by colours: gray ones get one, which they lose beside each other. */
  tint(on: boolean): void {
    const { lut } = this.look.peek();
    if (on && lut === "grays" && this.wanted.lut === undefined) {
      this.tinted = CHANNEL_LUTS[this.position % CHANNEL_LUTS.length] ?? "grays";
      this.take({ lut: this.tinted });
    } else if (!on) {
      if (lut === this.tinted) this.take({ lut: "grays" });
      this.tinted = null;
    }
  }

  get window(): Window {
    const { lo, hi, gamma } = this.look.value;
    return { lo, hi, gamma };
  }

  change(part: Partial<Look>): void {
    if (!this.take(part)) return;
    if (part.lut !== undefined) this.tinted = null;
    const look = this.look.peek();
    remember(this.key, JSON.stringify(this.tinted === look.lut ? { ...look, lut: "grays" } : look));
  }

  private take(part: Partial<Look>): boolean {
    const next = { ...this.look.peek(), ...part };
    if (!(Number.isFinite(next.lo) && Number.isFinite(next.hi) && next.lo < next.hi && next.gamma > 0)) return false;
    this.look.value = next;
    return true;
  }

  /** By hand from now on. */
  set(lo: number, hi: number): void {
    this.change({ lo, hi, mode: "hand" });
  }

  follow(mode: Mode, low = this.look.value.low, high = this.look.value.high): void {
    this.change({ mode, low, high });
    this.apply();
  }

  hear(histogram: Histogram): void {
    this.histogram.value = histogram;
    this.apply();
  }

  /** What the sender wants now: nothing is where it says nothing. */
  hearSent(limits: readonly [number, number] | null): void {
    this.sent.value = limits;
    const { mode } = this.look.peek();
    if (!limits && mode === "sent") this.take({ mode: "auto" });
    this.apply();
  }

  private apply(): void {
    const histogram = this.histogram.peek();
    const { mode, low, high, lo, hi } = this.look.peek();
    if (this.held || mode === "hand") return;
    if (mode === "sent") {
      const [from, to] = this.sent.peek() ?? [lo, hi];
      if (from !== lo || to !== hi) this.take({ lo: from, hi: from < to ? to : from + 1 });
      return;
    }
    if (!histogram) return;
    const at = (percent: number): number =>
      histogram.percentiles.find(([each]) => each === percent)?.[1] ?? (percent < 50 ? histogram.low : histogram.high);
    const [from, to] = mode === "auto" ? histogram.auto : [at(low), at(high)];
    const least = from < to ? to : from + (Number.isInteger(from) ? 1 : Math.max(1e-6, Math.abs(from) * 1e-6));
    // Nobody chose these: they are not remembered.
    if (from !== lo || least !== hi) this.take({ lo: from, hi: least });
  }
}

/** What the scope's author wants it to begin with; what this person chose before goes first. */
function told({ lut, contrast, gamma }: Display): Partial<Look> {
  const look: Partial<Look> = {};
  if (lut !== undefined && LUT_NAMES.includes(lut)) look.lut = lut;
  if (Array.isArray(contrast)) Object.assign(look, { mode: "hand", lo: contrast[0], hi: contrast[1] });
  if (gamma !== undefined && gamma > 0) look.gamma = gamma;
  return look;
}

/** The same for images that were sent with a look of their own. */
function sentLook({ contrast, contrasts, ...rest }: SentLook): Partial<Look> {
  return { ...told(rest), ...(contrast || contrasts ? { mode: "sent" } : {}) };
}

function remembered(key: string): Partial<Look> {
  try {
    return JSON.parse(recall(key) ?? "{}") as Partial<Look>;
  } catch (error) {
    console.info("the remembered contrast cannot be read:", error);
    return {};
  }
}
