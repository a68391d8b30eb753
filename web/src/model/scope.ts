import { batch, computed, signal } from "@preact/signals";
import { Connection, Refused } from "../net/connection";
import { decodeFrame } from "../net/frame";
import type { FromServer, Hello, Lease, LogLine, PlacedRoi, State, StreamAbout } from "../net/messages";
import { Rois } from "./rois";
import { StreamView } from "./stream";
import { Strips } from "./strip";
import { TableView } from "./tables";

const LOG_KEPT = 2000;

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
  readonly active = computed(() => this.streams.value.find((each) => each.name === this.activeName.value) ?? this.streams.value[0] ?? null);
  readonly shown = computed(() => this.streams.value.filter((each) => each.visible.value));
  readonly mayControl = computed(() => this.hello.value?.role === "control" && this.link.link.value === "open");
  readonly heldByOther = computed(() => !!this.lease.value?.holder && !this.lease.value.yours);
  readonly link: Connection;
  /** Called whenever there is something to draw. */
  redraw: () => void = () => undefined;
  /** Server's monotonic clock less `performance.now()`, in ms, by the quickest answer to a ping. */
  private clock: { offset: number; trip: number } | null = null;
  private greeted = 0;

  constructor() {
    this.link = new Connection(
      (message) => batch(() => this.hear(message)),
      (message) => this.hearFrame(message),
    );
  }

  stream(name: string): StreamView | null {
    return this.streams.value.find((each) => each.name === name) ?? null;
  }

  table(name: string): TableView | null {
    return this.tables.value.find((each) => each.about.name === name) ?? null;
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
    const known = this.rois.all.value.get(placed.roi.id);
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

  async removeRoi(id: string): Promise<void> {
    const known = this.rois.all.value.get(id);
    if (known) await this.control({ type: "remove_roi", stream: known.stream, roi_id: id });
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
      case "table":
        this.table(message.table)?.hear(message);
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
      return known ?? new TableView(about, this.link, hello.limits.table_rows);
    });
    for (const stream of this.streams.value) if (fresh || !before.includes(stream)) stream.begin();
    for (const table of this.tables.value) if (fresh || !tables.includes(table)) table.begin();
    this.redraw();
  }

  private async measureClock(): Promise<void> {
    for (let turn = 0; turn < 5; turn++) {
      const from = performance.now();
      try {
        const answer = await this.link.request<{ monotonic_ms: number }>({ type: "ping" });
        const to = performance.now();
        const trip = to - from;
        if (!this.clock || trip < this.clock.trip) this.clock = { offset: answer.monotonic_ms - (from + to) / 2, trip };
      } catch (error) {
        if (error instanceof Refused) return;
        throw error;
      }
    }
  }
}

/** The name that others see beside the lease. */
export function controlName(): string {
  return localStorage.getItem("name") ?? "";
}
