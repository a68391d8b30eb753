/** The messages of docs/page-protocol.md, version 1. */

export const SUBPROTOCOL = "mutoscope.page.1";

export interface Setting {
  name: string;
  kind: "int" | "float" | "bool" | "str" | "path" | "shape" | "ids";
  value: unknown;
  default: unknown;
  doc: string;
  unit: string;
  minimum: number | null;
  maximum: number | null;
  step: number | null;
  choices: unknown[];
  optional: boolean;
  live: boolean;
}

export interface StreamAbout {
  name: string;
  index: number;
  shape: [number, number];
  dtype: string;
  sent_dtype: "u1" | "u2" | "f4";
  range: [number, number] | null;
  rate_hz: number | null;
  pixel_size_um: number | null;
  driver: string;
  history: "recording" | "memory" | "dataset" | "none";
  /** Sizes in which its frames are stored; missing: one. */
  levels?: number;
  settings: Setting[];
  /** Of a layer of a viewer: what a person calls it, its window, the axes before y and x, and the layers of ROIs over it. */
  title?: string;
  window?: string;
  axes?: string[];
  colours?: 1 | 3;
  look?: SentLook;
  roi_layers?: string[];
}

/** How whoever sent the images wants them to be seen; limits for each value of an axis where they differ along it. */
export interface SentLook {
  lut?: string;
  gamma?: number;
  contrast?: [number, number];
  contrasts?: { axis: string; limits: Record<string, [number, number]> };
}

export interface Axis {
  name: string;
  title: string;
  /** What each index is called: no two are called alike. */
  values: string[];
  step: number;
  unit: string;
}

/** A value of each axis. */
export type At = Readonly<Record<string, string>>;

/** Layers that are seen together. */
export interface LayerWindow {
  name: string;
  title: string;
  axes: Axis[];
}

export interface OverlayColumns {
  y: string;
  x: string;
  frame_id: string | null;
  id: string | null;
  stream: string | null;
}

export interface TableAbout {
  name: string;
  owner: string;
  /** Rows kept in memory; 0 where there are only stored ones. */
  capacity: number;
  /** Whether the rows around any frame can be asked for. */
  stored?: boolean;
  columns: { name: string; dtype: string; shape: number[] }[];
  overlay: OverlayColumns | null;
}

export interface Field {
  name: string;
  type: "int" | "float" | "bool" | "str" | "choice" | "list" | "json";
  required: boolean;
  default: unknown;
  optional: boolean;
  doc: string;
  unit: string;
  minimum: number | null;
  maximum: number | null;
  choices: unknown[];
  items: Field | null;
}

export interface CommandAbout {
  name: string;
  title: string;
  doc: string;
  owners: string[];
  broadcast: boolean;
  fields: Field[];
}

/** How the page begins, where the scope's author said so. */
export interface Display {
  source?: "window" | "layer" | string;
  lut?: string;
  contrast?: "auto" | [number, number];
  gamma?: number;
  overlays?: string[];
}

export interface PlateImage {
  image: string;
  field: number;
  projection: boolean;
  /** t, c, z */
  extent: [number, number, number];
  stored: number;
  missing: number;
  position_um: [number, number] | null;
}

export interface Well {
  well: string;
  row: number;
  column: number;
  stored: number;
  missing: number;
  images: PlateImage[];
}

export interface Plate {
  name: string;
  rows: number;
  columns: number;
  wells: Well[];
}

export interface Hello {
  type: "hello";
  display?: Display;
  plate?: Plate;
  /** Where a viewer shows what programs send to it. */
  windows?: LayerWindow[];
  protocol: number;
  version: string;
  mode: "live" | "dataset";
  scope: string;
  client: string;
  role: "view" | "control";
  expires_utc_ms: number | null;
  monotonic_ms: number;
  utc_ms: number;
  record: { path: string; folder: string; subfolder: string } | null;
  streams: StreamAbout[];
  tables: TableAbout[];
  commands: CommandAbout[];
  workers: { name: string; kind: string; class: string; moves: boolean }[];
  limits: { credit: number; message_bytes: number; table_rows: number; rois: number; roi_bytes: number; lease_s: number; history_bytes: number };
}

export interface History {
  kind: StreamAbout["history"];
  first_id: number;
  last_id: number;
  frames: number;
  bytes: number;
}

export interface StreamState {
  produced: number;
  stored: number | null;
  pending: number | null;
  rate_hz: number;
  stored_hz: number | null;
  last_id: number;
  ring: { slots: number; used: number } | null;
  blocked_s: number;
  missed: number;
  dropped: Record<string, number>;
  shown: number;
  skipped: number;
  settings: Record<string, unknown>;
  consumers: {
    name: string;
    policy: string;
    offered: number;
    done?: number;
    pending?: number;
    dropped?: Record<string, number>;
    shown?: number;
    skipped?: number;
  }[];
  history: History | null;
}

export interface WorkerState {
  name: string;
  kind: string;
  class: string;
  pid: number | null;
  state: string;
  rate_hz: number;
  frames: number;
  dropped: number;
  missed: number;
  timeouts: number;
  busy: number | null;
  restarts: number;
  heartbeat_age_s: number | null;
  recovery_s: number[];
  last_error: string;
  last_traceback: string;
}

export interface State {
  type: "state";
  utc_ms: number;
  monotonic_ms: number;
  uptime_s?: number;
  scope?: { acquiring: boolean; saving: boolean; mode: string; settings: Record<string, unknown> };
  streams: Record<string, StreamState>;
  workers?: WorkerState[];
  tables?: Record<string, { appended: number; stored?: number; lost?: Record<string, number> }>;
  disk?: { free_bytes: number; reserve_bytes: number; bytes_per_s: number; full_in_s: number | null } | null;
  page?: { clients: number; viewers: number };
}

export interface Histogram {
  type: "histogram";
  stream: string;
  frame_id: number;
  /** Of the seek whose frame it is of; 0: of a live one. */
  request?: number;
  low: number;
  high: number;
  counts: number[];
  pixels: number;
  step: number;
  not_finite: number;
  auto: [number, number];
  percentiles: [number, number][];
}

export interface LogLine {
  utc_ms: number;
  level: number;
  worker: string;
  text: string;
}

/** (y, x), whole numbers at pixel centres. */
export type Vertex = [number, number];

export type Geometry =
  | { type: "rectangle" | "ellipse"; center: Vertex; height: number; width: number; angle_deg?: number }
  | { type: "polygon"; exterior: Vertex[]; holes?: Vertex[][] }
  | { type: "polyline"; vertices: Vertex[] }
  | { type: "freehand"; vertices: Vertex[]; closed?: boolean }
  | { type: "line"; start: Vertex; end: Vertex }
  | { type: "points"; points: Vertex[] }
  | { type: "mask"; origin: Vertex; shape: [number, number]; bits: string }
  | { type: "composite"; parts: Geometry[] };

export interface Roi {
  id: string;
  geometry: Geometry;
  name?: string;
  plane?: Record<string, unknown>;
  stroke?: { color?: string; width?: number; fill?: string };
  group?: string;
}

export interface PlacedRoi {
  stream: string;
  revision: number;
  roi: Roi;
}

export interface Lease {
  type: "lease";
  holder: string | null;
  name: string;
  yours: boolean;
  expires_in_s: number;
}

export interface Reply {
  type: "reply";
  id: number;
  ok: boolean;
  value?: unknown;
  error?: { code: string; kind: string; message: string; traceback: string | null };
}

export type Cell = number | string | boolean | null | Cell[];

export interface TableRows {
  type: "table";
  table: string;
  first: boolean;
  last_row_id: number;
  lost: number;
  columns: Record<string, Cell[]>;
}

export interface FrameIndex {
  first_id: number;
  last_id: number;
  frames: number;
  first_utc_ms: number | null;
  last_utc_ms: number | null;
  gaps: [number, number][];
  gaps_more: number;
  /** How long the axes are, where there are any. */
  shape?: number[] | null;
}

export type FromServer =
  | Hello
  | State
  | Histogram
  | Reply
  | Lease
  | TableRows
  | { type: "changed"; layers: Record<string, string[][] | null> }
  | { type: "picture"; request: number }
  | { type: "log"; lines: LogLine[] }
  | { type: "rois"; revision: number; rois: PlacedRoi[] }
  | { type: "roi"; revision: number; stream: string; origin: string; roi?: Roi; removed?: string }
  | { type: "ended"; reason: string; message: string; errors: string[]; dropped: Record<string, unknown> }
  | { type: "error"; code: string; message: string; about: string };
