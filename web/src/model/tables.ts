import { signal } from "@preact/signals";
import { Refused, type Connection } from "../net/connection";
import type { Cell, TableAbout, TableRows } from "../net/messages";

/** Frames around the shown one whose stored rows are asked for together. */
const BACK = 60;
const AHEAD = 240;

/** Stored rows around a frame, and the frames that they tell everything of. */
interface Past {
  first: number;
  last: number;
  tail: number;
  columns: Columns;
}

export type Columns = Map<string, number[]>;

/** The frame for which stored rows are wanted. */
export interface ShownFrame {
  stream: string;
  frameId: number;
  /** When it was taken, in seconds since 1970, and how many came in a second; NaN where that is not known. */
  utcS: number;
  rateHz: number;
}

/** The newest rows of one table, as columns of numbers. */
export class TableView {
  readonly revision = signal(0);
  readonly rows = signal(0);
  lost = 0;
  columns: Columns = new Map();
  /** When each row was made, in seconds since 1970: when it arrived, less the frames that the newest row beside it is ahead; NaN where nothing tells. */
  made: number[] = [];
  private lastRow = 0;
  /** How many rows there are without one passed over between them. */
  private run = 0;
  private users = new Map<string, { rows: number; hz: number }>();
  private subscribed = "";
  /** By stream, as is what was asked for last. */
  private pasts = new Map<string, Past>();
  private asked = new Map<string, string>();
  private asking = false;

  constructor(
    public about: TableAbout,
    private readonly link: Connection,
    private readonly limit: number,
    private readonly changed: () => void = () => {},
  ) {}

  get used(): boolean {
    return this.users.size > 0;
  }

  /** The columns from which a frame that is not live is drawn: the rows that are here, or stored ones, `null` until they have come. */
  columnsFor(shown: ShownFrame, tail: number): Columns | null {
    const { stored, capacity } = this.about;
    if (!stored || (capacity > 0 && !outlived(this, shown.frameId - tail))) return this.columns;
    const past = this.pasts.get(shown.stream);
    const covers = past !== undefined && past.first <= shown.frameId && shown.frameId <= past.last && past.tail >= tail;
    if (!covers || shown.frameId > past.last - AHEAD / 2) void this.ask(shown, tail);
    return covers ? past.columns : null;
  }

  /** Whether no row tells of a frame, as all are later, or those that were earlier are not kept. */
  beginsAfter(frameId: number, stream: string): boolean {
    if (!outlived(this, frameId)) return false;
    if (!this.about.stored) return true;
    const past = this.pasts.get(stream);
    if (!past || past.first > frameId || past.last < frameId) return false;
    const first = past.columns.get("frame_id")?.[0];
    return first === undefined || first > frameId;
  }

  private async ask(shown: ShownFrame, tail: number): Promise<void> {
    const { frameId, stream } = shown;
    const wanted = `${frameId} ${tail}`;
    if (this.asking || this.asked.get(stream) === wanted) return;
    this.asking = true;
    this.asked.set(stream, wanted);
    try {
      const message = { type: "rows", table: this.about.name, frame_id: frameId, before: tail + BACK, after: AHEAD, rows: this.limit };
      const answer = await this.link.request<{ columns: Record<string, Cell[]>; first_id: number; last_id: number }>(message);
      const columns: Columns = new Map(Object.entries(answer.columns).map(([name, cells]) => [name, cells.map(asNumber)]));
      const first = answer.first_id === 0 ? 0 : Math.min(frameId, Math.max(answer.first_id + tail, frameId - BACK));
      this.pasts.set(stream, { first, last: answer.last_id, tail, columns });
      if (this.about.capacity === 0) this.showPast(columns, shown);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      // Nothing is stored yet, or the connection is gone: asked again with the next frame.
    } finally {
      this.asking = false;
    }
    this.revision.value++;
    this.changed();
  }

  /** Without live rows, plots show those around the shown frame. */
  private showPast(columns: Columns, { frameId, utcS, rateHz }: ShownFrame): void {
    this.columns = columns;
    const ids = columns.get("frame_id") ?? [];
    this.made = ids.map((id) => utcS + (id - frameId) / rateHz);
    this.rows.value = ids.length;
  }

  /** Say that somebody (an overlay, a plot) needs so many rows, so often; `null`: no longer. */
  use(who: string, need: { rows: number; hz: number } | null): void {
    if (need) this.users.set(who, need);
    else this.users.delete(who);
    this.subscribe();
  }

  begin(): void {
    this.subscribed = "";
    this.pasts.clear();
    this.asked.clear();
    this.subscribe();
  }

  /** `rateHz`: of the frames that its column of ids counts, where that is known. */
  hear(message: TableRows, rateHz: number | null): void {
    const count = Math.max(0, ...Object.values(message.columns).map((cells) => cells.length));
    // Rows that were here before are sent again when somebody looks again: their times are known.
    const before = message.first ? this.made.slice(-this.run) : [];
    const firstBefore = this.lastRow - before.length + 1;
    if (message.first) {
      this.columns = new Map();
      this.made = [];
    }
    this.lastRow = message.last_row_id;
    this.run = message.first || message.lost ? count : this.run + count;
    this.lost += message.lost;
    for (const [name, cells] of Object.entries(message.columns)) {
      let column = this.columns.get(name);
      if (!column) this.columns.set(name, (column = []));
      for (const cell of cells) column.push(asNumber(cell));
      trim(column, this.limit);
    }
    const now = Date.now() / 1000;
    const ids = message.columns[this.about.overlay?.frame_id ?? "frame_id"]?.map(asNumber);
    const newest = ids?.[count - 1] ?? NaN;
    for (let row = 0; row < count; row++) {
      const age = rateHz ? (newest - ids?.[row]!) / rateHz : NaN;
      const known = before[message.last_row_id - count + 1 + row - firstBefore];
      // What has come just now was made just now; how old the rows are that were there already, only their frames can tell.
      this.made.push(known ?? (age >= 0 ? now - age : message.first && row < count - 1 ? NaN : now));
    }
    trim(this.made, this.limit);
    this.rows.value = this.made.length;
    if (count || message.first) this.revision.value++;
  }

  /** Names of columns that have one number a row. */
  get numeric(): string[] {
    return this.about.columns.filter(({ dtype, shape }) => shape.length === 0 && /^[<>|=]?[iufb]/.test(dtype)).map(({ name }) => name);
  }

  private subscribe(): void {
    if (this.about.capacity === 0) return this.changed();
    let rows = 0;
    let hz = 1;
    for (const need of this.users.values()) {
      rows = Math.max(rows, need.rows);
      hz = Math.max(hz, need.hz);
    }
    const wanted = `${rows} ${hz}`;
    if (wanted === this.subscribed) return;
    if (rows === 0 && this.subscribed === "") return;
    this.subscribed = wanted;
    this.link.send({ type: "table", table: this.about.name, rows: Math.min(rows, this.limit), at_most_hz: hz });
  }
}

function asNumber(cell: Cell): number {
  if (typeof cell === "number") return cell;
  if (cell === null || Array.isArray(cell)) return NaN;
  return Number(cell);
}

function trim(list: unknown[], limit: number): void {
  if (list.length > limit * 1.25) list.splice(0, list.length - limit);
}

/** What an overlay draws for one frame: where things are, and where they were. */
export interface Marks {
  points: { x: number; y: number; id: number | null }[];
  tails: { id: number; path: { x: number; y: number }[] }[];
}

/** Whether a frame is older than all rows that are kept here: what a table told of it is not known any more. */
export function outlived(table: TableView, frameId: number): boolean {
  const first = table.columns.get(table.about.overlay?.frame_id ?? "")?.[0];
  return first !== undefined && first > frameId;
}

/** The rows of a frame (the newest not after `frameId`), and the paths that lead there over the last `tail` frames. */
export function marksAt(table: TableView, frameId: number, tail: number, columns: Columns = table.columns): Marks {
  const overlay = table.about.overlay;
  const empty: Marks = { points: [], tails: [] };
  if (!overlay) return empty;
  const xs = columns.get(overlay.x);
  const ys = columns.get(overlay.y);
  if (!xs || !ys) return empty;
  const frames = overlay.frame_id ? columns.get(overlay.frame_id) : null;
  const ids = overlay.id ? columns.get(overlay.id) : null;
  let last = xs.length - 1;
  if (frames) while (last >= 0 && frames[last]! > frameId) last--;
  if (last < 0) return empty;
  const newest = frames ? frames[last]! : 0;
  const marks: Marks = { points: [], tails: [] };
  const paths = new Map<number, { x: number; y: number }[]>();
  for (let row = last; row >= 0; row--) {
    const age = frames ? newest - frames[row]! : last - row;
    if (age > Math.max(0, tail)) break;
    const x = xs[row]!;
    const y = ys[row]!;
    if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
    const id = ids ? ids[row]! : null;
    const now = frames ? age === 0 : ids !== null ? !paths.has(id ?? -1) : age <= tail;
    if (now) marks.points.push({ x, y, id });
    if (id !== null) {
      const path = paths.get(id);
      if (path) path.push({ x, y });
      else if (now) paths.set(id, [{ x, y }]);
    }
  }
  for (const [id, path] of paths) if (path.length > 1) marks.tails.push({ id, path });
  return marks;
}
