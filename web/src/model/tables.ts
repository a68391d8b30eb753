import { signal } from "@preact/signals";
import type { Connection } from "../net/connection";
import type { Cell, TableAbout, TableRows } from "../net/messages";

/** The newest rows of one table, as columns of numbers. */
export class TableView {
  readonly revision = signal(0);
  readonly rows = signal(0);
  lost = 0;
  columns = new Map<string, number[]>();
  /** When each row arrived, in seconds since 1970. */
  arrived: number[] = [];
  private users = new Map<string, { rows: number; hz: number }>();
  private subscribed = "";

  constructor(
    public about: TableAbout,
    private readonly link: Connection,
    private readonly limit: number,
  ) {}

  /** Say that somebody (an overlay, a plot) needs so many rows, so often; `null`: no longer. */
  use(who: string, need: { rows: number; hz: number } | null): void {
    if (need) this.users.set(who, need);
    else this.users.delete(who);
    this.subscribe();
  }

  begin(): void {
    this.subscribed = "";
    this.subscribe();
  }

  hear(message: TableRows): void {
    const count = Math.max(0, ...Object.values(message.columns).map((cells) => cells.length));
    if (message.first) {
      this.columns = new Map();
      this.arrived = [];
    }
    this.lost += message.lost;
    for (const [name, cells] of Object.entries(message.columns)) {
      let column = this.columns.get(name);
      if (!column) this.columns.set(name, (column = []));
      for (const cell of cells) column.push(asNumber(cell));
      trim(column, this.limit);
    }
    const now = Date.now() / 1000;
    for (let row = 0; row < count; row++) this.arrived.push(now);
    trim(this.arrived, this.limit);
    this.rows.value = this.arrived.length;
    if (count || message.first) this.revision.value++;
  }

  /** Names of columns that have one number a row. */
  get numeric(): string[] {
    return this.about.columns.filter(({ dtype, shape }) => shape.length === 0 && /^[<>|=]?[iufb]/.test(dtype)).map(({ name }) => name);
  }

  private subscribe(): void {
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

/** The rows of a frame (the newest not after `frameId`), and the paths that lead there over the last `tail` frames. */
export function marksAt(table: TableView, frameId: number, tail: number): Marks {
  const overlay = table.about.overlay;
  const empty: Marks = { points: [], tails: [] };
  if (!overlay) return empty;
  const xs = table.columns.get(overlay.x);
  const ys = table.columns.get(overlay.y);
  if (!xs || !ys) return empty;
  const frames = overlay.frame_id ? table.columns.get(overlay.frame_id) : null;
  const ids = overlay.id ? table.columns.get(overlay.id) : null;
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
