import { signal } from "@preact/signals";
import type { Geometry, PlacedRoi, Roi, Vertex } from "../net/messages";

/** What tells a ROI from all others: two streams may have ROIs of the same id. */
export const keyOf = (stream: string, id: string): string => JSON.stringify([stream, id]);
export const keyOfRoi = ({ stream, roi }: PlacedRoi): string => keyOf(stream, roi.id);

/** The ROIs of the scope by their keys, as the server tells them, and the one that is at hand here. */
export class Rois {
  readonly all = signal<ReadonlyMap<string, PlacedRoi>>(new Map());
  /** The key of one of them. */
  readonly selected = signal<string | null>(null);
  /** What is being drawn or moved and is not yet told: drawn in place of the one with its key. */
  readonly draft = signal<PlacedRoi | null>(null);

  get chosen(): PlacedRoi | null {
    return this.all.value.get(this.selected.value ?? "") ?? null;
  }

  hearAll(rois: PlacedRoi[]): void {
    this.all.value = new Map(rois.map((each) => [keyOfRoi(each), each]));
    if (this.selected.value && !this.all.value.has(this.selected.value)) this.selected.value = null;
  }

  hear(stream: string, revision: number, roi: Roi | undefined, removed: string | undefined): void {
    const next = new Map(this.all.value);
    const key = keyOf(stream, roi?.id ?? removed ?? "");
    if (roi) next.set(key, { stream, revision, roi });
    else next.delete(key);
    this.all.value = next;
    if (!roi && key === this.selected.value) this.selected.value = null;
    if (roi && this.draft.value && keyOfRoi(this.draft.value) === key) this.draft.value = null;
  }

  /** What a new one is called until somebody says otherwise: "ROI 1", and so on. */
  newName(): string {
    const taken = new Set([...this.all.value.values()].map(({ roi }) => roi.name));
    let number = 1;
    while (taken.has(`ROI ${number}`)) number++;
    return `ROI ${number}`;
  }

  of(stream: string): PlacedRoi[] {
    const draft = this.draft.value?.stream === stream ? this.draft.value : null;
    const found = [...this.all.value.values()].filter((each) => each.stream === stream && each.roi.id !== draft?.roi.id);
    return draft ? [...found, draft] : found;
  }
}

export const TITLES: Record<string, string> = {
  rectangle: "Rectangle",
  ellipse: "Ellipse",
  polygon: "Polygon",
  line: "Line",
  points: "Point",
  polyline: "Path",
  freehand: "Freehand",
  mask: "Mask",
  composite: "Composite",
};

const turn = ([y, x]: Vertex, [cy, cx]: Vertex, degrees: number): Vertex => {
  const angle = (degrees * Math.PI) / 180;
  const dy = y - cy;
  const dx = x - cx;
  return [cy + dx * Math.sin(angle) + dy * Math.cos(angle), cx + dx * Math.cos(angle) - dy * Math.sin(angle)];
};

export interface Outline {
  path: Vertex[];
  closed: boolean;
  dots: boolean;
}

/** Paths that draw a shape, (y, x) at pixel centres. */
export function outlines(geometry: Geometry): Outline[] {
  switch (geometry.type) {
    case "rectangle": {
      const { center, height, width, angle_deg = 0 } = geometry;
      const corners: Vertex[] = [
        [-1, -1],
        [-1, 1],
        [1, 1],
        [1, -1],
      ];
      const path = corners.map(([v, u]) => turn([center[0] + (v * height) / 2, center[1] + (u * width) / 2], center, angle_deg));
      return [{ path, closed: true, dots: false }];
    }
    case "ellipse": {
      const { center, height, width, angle_deg = 0 } = geometry;
      const path: Vertex[] = [];
      for (let step = 0; step < 72; step++) {
        const angle = (step / 72) * 2 * Math.PI;
        path.push(turn([center[0] + (Math.sin(angle) * height) / 2, center[1] + (Math.cos(angle) * width) / 2], center, angle_deg));
      }
      return [{ path, closed: true, dots: false }];
    }
    case "polygon":
      return [geometry.exterior, ...(geometry.holes ?? [])].map((path) => ({ path, closed: true, dots: false }));
    case "polyline":
      return [{ path: geometry.vertices, closed: false, dots: false }];
    case "freehand":
      return [{ path: geometry.vertices, closed: geometry.closed ?? true, dots: false }];
    case "line":
      return [{ path: [geometry.start, geometry.end], closed: false, dots: false }];
    case "points":
      return [{ path: geometry.points, closed: false, dots: true }];
    case "mask": {
      const { origin, shape } = geometry;
      const [y, x] = [origin[0] - 0.5, origin[1] - 0.5];
      return [
        {
          path: [
            [y, x],
            [y, x + shape[1]],
            [y + shape[0], x + shape[1]],
            [y + shape[0], x],
          ],
          closed: true,
          dots: false,
        },
      ];
    }
    case "composite":
      return geometry.parts.flatMap(outlines);
  }
}

/** The points by which a shape is changed; moving number `n` to a place is `reshape`. */
export function handles(geometry: Geometry): Vertex[] {
  switch (geometry.type) {
    case "rectangle":
      return outlines(geometry)[0]!.path;
    case "ellipse": {
      const { center, height, width, angle_deg = 0 } = geometry;
      const ends: Vertex[] = [
        [center[0] - height / 2, center[1]],
        [center[0], center[1] + width / 2],
        [center[0] + height / 2, center[1]],
        [center[0], center[1] - width / 2],
      ];
      return ends.map((end) => turn(end, center, angle_deg));
    }
    case "polygon":
      return geometry.exterior;
    case "polyline":
      return geometry.vertices;
    case "line":
      return [geometry.start, geometry.end];
    case "points":
      return geometry.points;
    default:
      return [];
  }
}

export function reshape(geometry: Geometry, handle: number, to: Vertex): Geometry {
  switch (geometry.type) {
    case "rectangle": {
      const { angle_deg = 0 } = geometry;
      const opposite = handles(geometry)[(handle + 2) % 4]!;
      const center: Vertex = [(opposite[0] + to[0]) / 2, (opposite[1] + to[1]) / 2];
      const [y, x] = turn(to, center, -angle_deg);
      return { ...geometry, center, height: 2 * Math.abs(y - center[0]), width: 2 * Math.abs(x - center[1]) };
    }
    case "ellipse": {
      const { center, angle_deg = 0 } = geometry;
      const [y, x] = turn(to, center, -angle_deg);
      return handle % 2 === 0
        ? { ...geometry, height: 2 * Math.abs(y - center[0]) }
        : { ...geometry, width: 2 * Math.abs(x - center[1]) };
    }
    case "polygon":
      return { ...geometry, exterior: replaced(geometry.exterior, handle, to) };
    case "polyline":
      return { ...geometry, vertices: replaced(geometry.vertices, handle, to) };
    case "line":
      return handle === 0 ? { ...geometry, start: to } : { ...geometry, end: to };
    case "points":
      return { ...geometry, points: replaced(geometry.points, handle, to) };
    default:
      return geometry;
  }
}

const replaced = (list: Vertex[], at: number, value: Vertex): Vertex[] => list.map((each, index) => (index === at ? value : each));

export function moved(geometry: Geometry, dy: number, dx: number): Geometry {
  const by = ([y, x]: Vertex): Vertex => [y + dy, x + dx];
  switch (geometry.type) {
    case "rectangle":
    case "ellipse":
      return { ...geometry, center: by(geometry.center) };
    case "polygon":
      return { ...geometry, exterior: geometry.exterior.map(by), ...(geometry.holes ? { holes: geometry.holes.map((hole) => hole.map(by)) } : {}) };
    case "polyline":
    case "freehand":
      return { ...geometry, vertices: geometry.vertices.map(by) };
    case "line":
      return { ...geometry, start: by(geometry.start), end: by(geometry.end) };
    case "points":
      return { ...geometry, points: geometry.points.map(by) };
    case "mask":
      // A mask lies on whole pixels.
      return { ...geometry, origin: [geometry.origin[0] + Math.round(dy), geometry.origin[1] + Math.round(dx)] };
    case "composite":
      return { ...geometry, parts: geometry.parts.map((part) => moved(part, dy, dx)) };
  }
}

/** Larger or smaller by so many pixels on each axis; shapes without lengths stay as they are. */
export function grown(geometry: Geometry, dy: number, dx: number): Geometry {
  if (geometry.type !== "rectangle" && geometry.type !== "ellipse") return geometry;
  return { ...geometry, height: Math.max(1, geometry.height + dy), width: Math.max(1, geometry.width + dx) };
}

function distanceToSegment([py, px]: Vertex, [ay, ax]: Vertex, [by, bx]: Vertex): number {
  const dx = bx - ax;
  const dy = by - ay;
  const length = dx * dx + dy * dy;
  const along = length ? Math.min(1, Math.max(0, ((px - ax) * dx + (py - ay) * dy) / length)) : 0;
  return Math.hypot(px - ax - along * dx, py - ay - along * dy);
}

function inside([y, x]: Vertex, path: Vertex[]): boolean {
  let within = false;
  path.forEach(([ay, ax], index) => {
    const [by, bx] = path[(index + 1) % path.length]!;
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  });
  return within;
}

/** Whether a place is on a shape, with so many pixels of slack at lines and points. */
export function hits(geometry: Geometry, at: Vertex, slack: number): boolean {
  return outlines(geometry).some(({ path, closed, dots }) => {
    if (dots) return path.some(([y, x]) => Math.hypot(at[0] - y, at[1] - x) <= slack * 1.5);
    if (closed && inside(at, path)) return true;
    return path.some((from, index) => {
      if (!closed && index === path.length - 1) return false;
      return distanceToSegment(at, from, path[(index + 1) % path.length]!) <= slack;
    });
  });
}

/** Where a name is written: the upper left of the outline. */
export function anchor(geometry: Geometry): Vertex {
  const all = outlines(geometry).flatMap(({ path }) => path);
  const top = Math.min(...all.map(([y]) => y));
  const left = Math.min(...all.map(([, x]) => x));
  return [top, left];
}

const shoelace = (path: Vertex[]): number =>
  Math.abs(path.reduce((sum, [y, x], index) => sum + x * path[(index + 1) % path.length]![0] - path[(index + 1) % path.length]![1] * y, 0)) / 2;

const along = (path: Vertex[]): number =>
  path.slice(1).reduce((sum, [y, x], index) => sum + Math.hypot(y - path[index]![0], x - path[index]![1]), 0);

/** Area or length in pixels, where the shape has one. */
export function measure(geometry: Geometry): { area: number } | { length: number } | null {
  switch (geometry.type) {
    case "rectangle":
      return { area: geometry.height * geometry.width };
    case "ellipse":
      return { area: (Math.PI * geometry.height * geometry.width) / 4 };
    case "polygon":
      return { area: shoelace(geometry.exterior) - (geometry.holes ?? []).reduce((sum, hole) => sum + shoelace(hole), 0) };
    case "freehand":
      return geometry.closed === false ? { length: along(geometry.vertices) } : { area: shoelace(geometry.vertices) };
    case "polyline":
      return { length: along(geometry.vertices) };
    case "line":
      return { length: Math.hypot(geometry.end[0] - geometry.start[0], geometry.end[1] - geometry.start[1]) };
    default:
      return null;
  }
}
