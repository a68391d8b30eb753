import { batch, computed, effect, signal, untracked } from "@preact/signals";
import { Connection, Refused } from "../net/connection";
import { decodeFrame } from "../net/frame";
import type { FromServer, Hello, Lease, LogLine, PlacedRoi, State, StreamAbout, TableAbout, TableRows } from "../net/messages";
import { recall } from "./memory";
import { Layers } from "./layers";
import { keyOfRoi, Rois } from "./rois";
import { StreamView } from "./stream";
import { Strips } from "./strip";
import { TableView } from "./tables";

const LOG_KEPT = 2000;
/** The clocks of two computers drift apart: answers older than a minute do not count. */
const PINGS = 60;
const PING_MS = 1000;

export interface Notice {
  text: string;
  kind: "done" | "bad";
  detail: string | null;
}

/** All that this client knows of the scope. */
export class ScopeView {
  readonly hello = signal<Hello | null>(null);
  readonly state = signal<State | null>(null);
  readonly lease = signal<Lease | null>(null);
  /** When the lease ends, by `performance.now()`. */
  leaseEnds = 0;
  readonly log = signal<LogLine[]>([]);
  readonly ended = signal<{ reason: string; message: string; errors: string[] } | null>(null);
  readonly notice = signal<Notice | null>(null);
  readonly streams = signal<readonly StreamView[]>([]);
  readonly tables = signal<readonly TableView[]>([]);
  readonly rois = new Rois();
  readonly strips = new Strips();
  readonly activeName = signal("");
  /** The image of the plate that is seen, where a plate is shown. */
  readonly field = signal("");
  /** The streams that there are to be seen: of a viewer, those of the window that is seen. */
  readonly listed = computed(() => {
    if (!this.viewer.value) return this.streams.value;
    const window = this.layers.window.value?.name;
    return this.streams.value.filter((each) => each.about.value.window === window);
  });
  readonly active = computed(() => this.listed.value.find((each) => each.name === this.activeName.value) ?? this.listed.value[0] ?? null);
  readonly shown = computed(() => this.listed.value.filter((each) => each.visible.value));
  /** Whether this is a viewer of what programs send. */
  readonly viewer = computed(() => this.hello.value?.windows !== undefined);
  /** Whether this is a stored data set, which is only looked at. */
  readonly stored = computed(() => this.hello.value?.mode === "dataset");
  readonly mayControl = computed(() => this.hello.value?.role === "control" && !this.stored.value && this.link.link.value === "open");
  readonly heldByOther = computed(() => !!this.lease.value?.holder && !this.lease.value.yours);
  readonly link: Connection;
  readonly layers: Layers;
  /** Called when the viewer's program wants to know what is on the screen. */
  onPicture: (request: number) => void = () => undefined;
  /** Called whenever there is something to draw. */
  redraw: () => void = () => undefined;
  /** Server's monotonic clock less `performance.now()`, in ms, by the quickest of the last answers to a ping. */
  clock: { offset: number; trip: number } | null = null;
  private pings: { offset: number; trip: number }[] = [];
  private greeted = 0;

  constructor() {
    this.link = new Connection(
      (message) => batch(() => this.hear(message)),
      (message) => this.hearFrame(message),
    );
    this.layers = new Layers(this.hello, this.streams, this.link, () => this.redraw());
    window.setInterval(() => void (this.link.link.peek() === "open" && this.measureClock()), PING_MS);
    // The channels of a plate show one plane.
    effect(() => {
      const frame = this.active.value?.frame.value;
      const others = this.shown.value.filter((each) => each !== this.active.value);
      if (this.hello.value?.plate && frame) untracked(() => others.forEach((each) => each.follow(frame.frameId)));
    });
  }

  chooseField(image: string): void {
    this.field.value = image;
    for (const stream of this.streams.value) void stream.choose(image);
  }

  stream(name: string): StreamView | null {
    return this.streams.value.find((each) => each.name === name) ?? null;
  }

  table(name: string): TableView | null {
    return this.tables.value.find((each) => each.about.name === name) ?? null;
  }

  /** The stream whose frames a table tells of: as its columns say, else the only one there is or that its worker reads. */
  streamOf({ overlay, owner }: TableAbout): string | null {
    if (overlay?.stream) return overlay.stream;
    const states = Object.entries(this.state.peek()?.streams ?? {});
    const read = states.length === 1 ? states : states.filter(([, { consumers }]) => consumers?.some(({ name }) => name === owner));
    return read.length === 1 ? read[0]![0] : null;
  }

  streamsAbout(): StreamAbout[] {
    return this.hello.value?.streams ?? [];
  }

  say(text: string, kind: Notice["kind"] = "done", detail: string | null = null): void {
    this.notice.value = { text, kind, detail };
  }

  /** Ask for a change of the scope, taking control first when nobody has it. Returns the reply's value, or undefined after saying why not. */
  async control<T>(message: Record<string, unknown>, done?: string): Promise<T | undefined> {
    try {
      if (!this.lease.value?.yours) await this.askLease(true);
      const value = await this.link.request<T>(message);
      if (this.lease.value?.yours) this.leaseEnds = performance.now() + (this.hello.value?.limits.lease_s ?? 0) * 1000;
      if (done) this.say(done);
      return value;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.say(error.message, "bad", error.traceback);
      return undefined;
    }
  }

  /** Take control, keep it for another while, or give it back. */
  async hold(take: boolean): Promise<void> {
    try {
      await this.askLease(take);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.say(error.message, "bad", error.traceback);
    }
  }

  private async askLease(take: boolean): Promise<void> {
    const lease = await this.link.request<Omit<Lease, "type">>({ type: "lease", take, ...(take ? { name: controlName() } : {}) });
    this.hearLease({ ...lease, type: "lease" });
  }

  async putRoi(placed: PlacedRoi): Promise<string | undefined> {
    this.rois.draft.value = placed;
    const known = this.rois.all.value.get(keyOfRoi(placed));
    const answer = await this.control<{ roi_id: string; revision: number }>({
      type: "put_roi",
      stream: placed.stream,
      roi: placed.roi,
      ...(known ? { revision: known.revision } : {}),
    });
    if (this.rois.draft.value === placed) this.rois.draft.value = null;
    this.redraw();
    return answer?.roi_id;
  }

  async removeRoi({ stream, roi }: PlacedRoi): Promise<void> {
    await this.control({ type: "remove_roi", stream, roi_id: roi.id });
  }

  /** Milliseconds from a moment of the host's monotonic clock to now. */
  since(monotonicNs: bigint): number | null {
    if (!this.clock || monotonicNs === 0n) return null;
    return performance.now() + this.clock.offset - Number(monotonicNs) / 1e6;
  }

  private hear(message: FromServer): void {
    switch (message.type) {
      case "hello":
        this.greet(message);
        break;
      case "state":
        this.strips.hear(message);
        this.state.value = message;
        break;
      case "histogram":
        this.stream(message.stream)?.hearHistogram(message);
        this.redraw();
        break;
      case "lease":
        this.hearLease(message);
        break;
      case "log":
        this.log.value = [...this.log.value, ...message.lines].slice(-LOG_KEPT);
        break;
      case "rois":
        this.rois.hearAll(message.rois);
        this.redraw();
        break;
      case "roi":
        this.rois.hear(message.stream, message.revision, message.roi, message.removed);
        this.redraw();
        break;
      case "changed":
        this.layers.hear(message.layers);
        break;
      case "picture":
        this.onPicture(message.request);
        break;
      case "table":
        this.hearRows(message);
        this.redraw();
        break;
      case "ended":
        this.ended.value = message;
        this.link.end();
        break;
      case "error":
        this.say(message.message, "bad");
        break;
      case "reply":
        break;
    }
  }

  private hearFrame(message: ArrayBuffer): void {
    const frame = decodeFrame(message);
    const about = this.streamsAbout().find((each) => each.index === frame.stream);
    if (about) this.stream(about.name)?.hear(frame);
  }

  private hearRows(message: TableRows): void {
    const table = this.table(message.table);
    if (!table) return;
    const stream = this.streamOf(table.about);
    table.hear(message, (stream !== null && this.state.value?.streams[stream]?.rate_hz) || null);
  }

  private hearLease(lease: Lease): void {
    this.lease.value = lease;
    this.leaseEnds = performance.now() + lease.expires_in_s * 1000;
  }

  private greet(hello: Hello): void {
    // Within a connection a `hello` only tells changes; after a new one all standing wishes are said again.
    const fresh = this.greeted !== this.link.opened;
    this.greeted = this.link.opened;
    if (fresh) {
      this.log.value = [];
      this.pings = [];
      this.clock = null;
      void this.measureClock();
    }
    this.hello.value = hello;
    document.title = `${hello.scope} · Mutoscope`;
    const before = this.streams.value;
    this.streams.value = hello.streams.map((about) => {
      const known = before.find((each) => each.name === about.name);
      if (known) known.about.value = about;
      return known ?? new StreamView(about, hello.scope, hello.display ?? {}, this.link, () => this.redraw());
    });
    const tables = this.tables.value;
    this.tables.value = hello.tables.map((about) => {
      const known = tables.find((each) => each.about.name === about.name);
      if (known) known.about = about;
      return known ?? new TableView(about, this.link, hello.limits.table_rows, () => this.redraw());
    });
    if (hello.plate && !this.field.value) this.field.value = hello.plate.wells[0]?.images[0]?.image ?? "";
    if (fresh) this.layers.begin();
    for (const stream of this.streams.value) if (fresh || !before.includes(stream)) stream.begin();
    for (const table of this.tables.value) if (fresh || !tables.includes(table)) table.begin();
    this.redraw();
  }

  private async measureClock(): Promise<void> {
    const from = performance.now();
    try {
      const answer = await this.link.request<{ monotonic_ms: number }>({ type: "ping" });
      const to = performance.now();
      this.pings = [...this.pings, { offset: answer.monotonic_ms - (from + to) / 2, trip: to - from }].slice(-PINGS);
      this.clock = this.pings.reduce((best, each) => (each.trip < best.trip ? each : best));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }
}

/** The name that others see beside the lease. */
export function controlName(): string {
  return recall("name") ?? "";
}
