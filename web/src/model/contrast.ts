import { signal } from "@preact/signals";
import type { Window } from "../image/rule";
import { LUT_NAMES } from "../image/luts";
import type { Display, Histogram } from "../net/messages";

export type Mode = "auto" | "percentile" | "hand";

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

  constructor(
    private readonly key: string,
    range: [number, number] | null,
    private readonly position: number,
    display: Display,
  ) {
    const [lo, hi] = range ?? [0, 1];
    this.look = signal<Look>({ mode: "auto", lo, hi, gamma: 1, lut: "grays", low: 1, high: 99, ...told(display), ...remembered(key) });
  }

  /** Images over each other are told apart by colours: gray ones get one. */
  tint(): void {
    if (this.look.peek().lut === "grays") this.change({ lut: CHANNEL_LUTS[this.position % CHANNEL_LUTS.length] ?? "grays" });
  }

  get window(): Window {
    const { lo, hi, gamma } = this.look.value;
    return { lo, hi, gamma };
  }

  change(part: Partial<Look>): void {
    const next = { ...this.look.peek(), ...part };
    if (!(Number.isFinite(next.lo) && Number.isFinite(next.hi) && next.lo < next.hi && next.gamma > 0)) return;
    this.look.value = next;
    try {
      localStorage.setItem(this.key, JSON.stringify(next));
    } catch (error) {
      console.info("the contrast is not remembered:", error);
    }
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

  private apply(): void {
    const histogram = this.histogram.value;
    const { mode, low, high, lo, hi } = this.look.value;
    if (!histogram || mode === "hand" || this.held) return;
    const at = (percent: number): number =>
      histogram.percentiles.find(([each]) => each === percent)?.[1] ?? (percent < 50 ? histogram.low : histogram.high);
    const [from, to] = mode === "auto" ? histogram.auto : [at(low), at(high)];
    const least = from < to ? to : from + (Number.isInteger(from) ? 1 : Math.max(1e-6, Math.abs(from) * 1e-6));
    if (from !== lo || least !== hi) this.change({ lo: from, hi: least });
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

function remembered(key: string): Partial<Look> {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "{}") as Partial<Look>;
  } catch (error) {
    console.info("no remembered contrast:", error);
    return {};
  }
}
