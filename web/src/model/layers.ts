import { computed, effect, type ReadonlySignal, type Signal, signal, untracked } from "@preact/signals";
import { type Connection, Refused } from "../net/connection";
import type { At, Axis, Hello, LayerWindow, Roi } from "../net/messages";
import { sameAt, type StreamView } from "./stream";

/** The ROIs of one layer on the plane that is seen. */
interface PlaneRois {
  at: At;
  rois: readonly Roi[];
  more: number;
}

/** What a viewer shows: which window, which plane along its axes, and the ROIs of that plane. */
export class Layers {
  /** What was chosen along each axis, in any window. */
  private readonly chosen = signal<At>({});
  private readonly windowName = signal("");
  /** Which axis the keys step along, where one was chosen. */
  private readonly axisName = signal("");
  readonly window: ReadonlySignal<LayerWindow | null>;
  /** The axes along which there is something to choose. */
  readonly axes: ReadonlySignal<readonly Axis[]>;
  readonly at: ReadonlySignal<At>;
  readonly axis: ReadonlySignal<Axis | null>;
  readonly rois = signal<ReadonlyMap<string, PlaneRois>>(new Map());
  private asking = new Set<string>();
  private stale = new Set<string>();

  constructor(
    hello: Signal<Hello | null>,
    private readonly streams: Signal<readonly StreamView[]>,
    private readonly link: Connection,
    private readonly changed: () => void,
  ) {
    this.window = computed(() => {
      const windows = hello.value?.windows ?? [];
      return windows.find(({ name }) => name === this.windowName.value) ?? windows[0] ?? null;
    });
    this.axes = computed(() => this.window.value?.axes.filter(({ values }) => values.length > 1) ?? []);
    this.at = computed(() => Object.fromEntries((this.window.value?.axes ?? []).map((axis) => [axis.name, this.valueOf(axis)])));
    this.axis = computed(() => {
      const axes = this.axes.value;
      return axes.find(({ name }) => name === this.axisName.value) ?? axes.find(({ name }) => name === "t") ?? axes[axes.length - 1] ?? null;
    });
    effect(() => {
      const [window, at] = [this.window.value, this.at.value];
      const streams = this.streams.value.filter((each) => each.about.value.axes);
      untracked(() => {
        for (const stream of streams) {
          const about = stream.about.peek();
          if (about.window === window?.name) {
            stream.goTo(Object.fromEntries((about.axes ?? []).map((axis) => [axis, at[axis] ?? ""])));
            const { contrast, contrasts } = about.look ?? {};
            stream.contrast.hearSent(contrast ?? contrasts?.limits[at[contrasts.axis] ?? ""] ?? null);
          }
          stream.park(about.window !== window?.name);
        }
        this.askRois();
      });
    });
  }

  private valueOf({ name, values }: Axis): string {
    const wanted = this.chosen.value[name];
    return wanted !== undefined && values.includes(wanted) ? wanted : values[0]!;
  }

  chooseWindow(name: string): void {
    this.windowName.value = name;
  }

  choose(axis: string, value: string): void {
    this.chosen.value = { ...this.chosen.peek(), [axis]: value };
  }

  /** The keys step along this one from now on. */
  use(axis: string): void {
    this.axisName.value = axis;
  }

  /** Go so many values on along the axis of the keys; with `around`, from the end to the beginning. */
  step(by: number, around = false): void {
    const axis = this.axis.peek();
    if (!axis) return;
    const count = axis.values.length;
    const to = axis.values.indexOf(this.valueOf(axis)) + by;
    this.choose(axis.name, axis.values[around ? (to + count) % count : Math.min(count - 1, Math.max(0, to))]!);
  }

  /** Planes came, or ROIs. */
  hear(layers: Record<string, string[][] | null>): void {
    for (const [layer, planes] of Object.entries(layers)) {
      this.stale.add(layer);
      this.streams.peek().find(({ name }) => name === layer)?.refresh(planes);
    }
    this.askRois();
  }

  /** All is to be asked for again, as after a connection was made. */
  begin(): void {
    this.rois.value = new Map();
    this.asking.clear();
    this.stale.clear();
    this.askRois();
  }

  /** The layers of ROIs that lie over a stream. */
  over(stream: StreamView): readonly string[] {
    return stream.about.peek().roi_layers ?? [];
  }

  private askRois(): void {
    const window = this.window.peek();
    if (!window) return;
    const shown = this.streams.peek().filter((each) => each.about.peek().window === window.name);
    for (const layer of new Set(shown.flatMap((each) => this.over(each)))) void this.askLayer(layer);
  }

  /** One question a layer at a time; what is seen when it is answered is asked for next. */
  private async askLayer(layer: string): Promise<void> {
    if (this.asking.has(layer)) return;
    this.asking.add(layer);
    try {
      for (;;) {
        const at = this.at.peek();
        const known = this.rois.peek().get(layer);
        if (known && sameAt(known.at, at) && !this.stale.has(layer)) return;
        this.stale.delete(layer);
        const found = await this.link.request<{ rois: Roi[]; more: number }>({ type: "plane_rois", layer, at });
        this.rois.value = new Map(this.rois.peek()).set(layer, { at, ...found });
        this.changed();
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.info(`ROIs of ${layer}: ${error.message}`);
      const rest = new Map(this.rois.peek());
      rest.delete(layer);
      this.rois.value = rest;
      this.changed();
    } finally {
      this.asking.delete(layer);
    }
  }

  /** The ROIs on the plane that is seen, of each layer over these streams once. */
  shown(streams: readonly StreamView[]): Roi[] {
    const at = this.at.peek();
    const layers = new Set(streams.flatMap((each) => this.over(each)));
    return [...layers].flatMap((layer) => {
      const found = this.rois.peek().get(layer);
      return found && sameAt(found.at, at) ? found.rois : [];
    });
  }
}
