import { signal } from "@preact/signals";
import { grown, handles, hits, keyOf, keyOfRoi, moved, reshape } from "../model/rois";
import type { ScopeView } from "../model/scope";
import type { StreamView } from "../model/stream";
import type { Geometry, PlacedRoi, Vertex } from "../net/messages";

export type Tool = "move" | "rectangle" | "ellipse" | "polygon" | "freehand" | "line" | "point";

export const TOOLS: readonly { tool: Tool; title: string; key: string }[] = [
  { tool: "move", title: "Pan and select", key: "v" },
  { tool: "rectangle", title: "Rectangle", key: "r" },
  { tool: "ellipse", title: "Ellipse", key: "e" },
  { tool: "polygon", title: "Polygon", key: "g" },
  { tool: "freehand", title: "Freehand", key: "h" },
  { tool: "line", title: "Line", key: "l" },
  { tool: "point", title: "Point", key: "p" },
];

const round = (value: number): number => Math.round(value * 100) / 100;

/** Of a shape drawn by hand: a message stays far below what the server takes. */
const MOST_VERTICES = 10_000;

/** Corner coordinates to (y, x) at pixel centres. */
const vertex = (x: number, y: number): Vertex => [round(y - 0.5), round(x - 0.5)];

/** What the mouse does to ROIs. Places are corner coordinates of the stream's image, `slack` is some pixels of the screen in those. */
export class RoiTools {
  readonly tool = signal<Tool>("move");
  private drag: { from: Vertex; geometry: Geometry; placed: PlacedRoi; handle: number | null } | null = null;
  private drawing: { stream: string; from: { x: number; y: number }; slack: number; path: Vertex[] } | null = null;
  private corners: Vertex[] = [];

  constructor(private readonly scope: ScopeView) {}

  get busy(): boolean {
    return this.drag !== null || this.drawing !== null || this.corners.length > 0;
  }

  choose(tool: Tool): void {
    this.cancel();
    this.tool.value = tool;
  }

  cancel(): void {
    this.drag = null;
    this.drawing = null;
    this.corners = [];
    this.scope.rois.draft.value = null;
    this.scope.redraw();
  }

  /** Returns whether the press is for a ROI; else it pans. */
  press(stream: StreamView, x: number, y: number, slack: number): boolean {
    const { rois } = this.scope;
    const at = vertex(x, y);
    if (this.tool.value === "move") {
      const own = rois.of(stream.name);
      const selected = own.find((each) => keyOfRoi(each) === rois.selected.value);
      const handle = selected ? handles(selected.roi.geometry).findIndex(([hy, hx]) => Math.hypot(hy - at[0], hx - at[1]) <= slack * 1.4) : -1;
      const hit = handle >= 0 ? selected : [...own].reverse().find((each) => hits(each.roi.geometry, at, slack));
      rois.selected.value = hit ? keyOfRoi(hit) : null;
      this.scope.redraw();
      if (!hit || !this.scope.mayControl.value) return false;
      this.drag = { from: at, geometry: hit.roi.geometry, placed: hit, handle: handle >= 0 ? handle : null };
      return true;
    }
    if (!this.scope.mayControl.value) {
      this.scope.say("This link only shows: it cannot draw.", "bad");
      return true;
    }
    if (this.tool.value === "point") {
      void this.finish(stream.name, { type: "points", points: [at] });
      return true;
    }
    if (this.tool.value === "polygon") {
      const first = this.corners[0];
      if (first && this.corners.length >= 3 && Math.hypot(first[0] - at[0], first[1] - at[1]) <= slack * 1.5) this.close(stream.name);
      else {
        this.corners.push(at);
        this.sketch(stream.name, { type: "polyline", vertices: [...this.corners, at] });
      }
      return true;
    }
    this.drawing = { stream: stream.name, from: { x, y }, slack, path: [at] };
    return true;
  }

  hover(stream: StreamView, x: number, y: number): void {
    const at = vertex(x, y);
    if (this.drag) {
      const { from, geometry, placed, handle } = this.drag;
      const next = handle === null ? moved(geometry, round(at[0] - from[0]), round(at[1] - from[1])) : reshape(geometry, handle, at);
      this.scope.rois.draft.value = { ...placed, roi: { ...placed.roi, geometry: next } };
      this.scope.redraw();
    } else if (this.drawing) {
      const geometry = this.drawn(x, y);
      if (geometry) this.sketch(this.drawing.stream, geometry);
    } else if (this.corners.length) {
      this.sketch(stream.name, { type: "polyline", vertices: [...this.corners, at] });
    }
  }

  release(x: number, y: number): void {
    if (this.drag) {
      const { geometry } = this.drag;
      this.drag = null;
      const draft = this.scope.rois.draft.value;
      if (draft && draft.roi.geometry !== geometry) void this.scope.putRoi(draft);
    } else if (this.drawing) {
      const { stream } = this.drawing;
      const geometry = this.drawn(x, y);
      this.drawing = null;
      if (geometry) void this.finish(stream, geometry);
    }
  }

  /** Ends a polygon that is being drawn. */
  close(stream: string): void {
    const corners = this.corners.filter((each, index, all) => index === 0 || Math.hypot(each[0] - all[index - 1]![0], each[1] - all[index - 1]![1]) > 0.01);
    this.corners = [];
    if (corners.length >= 3) void this.finish(stream, { type: "polygon", exterior: corners });
    else this.cancel();
  }

  /** By keyboard: the tool's shape in the middle of what is seen. */
  addInMiddle(stream: StreamView): void {
    if (!this.scope.mayControl.value) return;
    const { x, y, zoom } = stream.view.value;
    const size = Math.max(2, Math.round(Math.min(stream.pane.width, stream.pane.height) / zoom / 5));
    const center = vertex(Math.round(x), Math.round(y));
    const [cy, cx] = center;
    const half = size / 2;
    const tool = this.tool.value === "move" ? "rectangle" : this.tool.value;
    const shapes: Record<Exclude<Tool, "move">, Geometry> = {
      rectangle: { type: "rectangle", center, height: size, width: size },
      ellipse: { type: "ellipse", center, height: size, width: size },
      polygon: {
        type: "polygon",
        exterior: [
          [cy - half, cx],
          [cy + half, cx + half],
          [cy + half, cx - half],
        ],
      },
      // By keyboard there is no hand: a diamond that can be moved.
      freehand: {
        type: "freehand",
        vertices: [
          [cy - half, cx],
          [cy, cx + half],
          [cy + half, cx],
          [cy, cx - half],
        ],
        closed: true,
      },
      line: { type: "line", start: [cy, cx - half], end: [cy, cx + half] },
      point: { type: "points", points: [center] },
    };
    void this.finish(stream.name, shapes[tool]);
  }

  nudge(dy: number, dx: number, grow: boolean): boolean {
    const placed = this.scope.rois.chosen;
    if (!placed || !this.scope.mayControl.value) return false;
    const geometry = grow ? grown(placed.roi.geometry, dy, dx) : moved(placed.roi.geometry, dy, dx);
    void this.scope.putRoi({ ...placed, roi: { ...placed.roi, geometry } });
    return true;
  }

  selectNext(stream: StreamView, backwards: boolean): void {
    const own = this.scope.rois.of(stream.name).map(keyOfRoi);
    if (!own.length) return;
    const at = own.indexOf(this.scope.rois.selected.value ?? "");
    const next = at < 0 ? (backwards ? own.length - 1 : 0) : (at + (backwards ? own.length - 1 : 1)) % own.length;
    this.scope.rois.selected.value = own[next] ?? null;
    this.scope.redraw();
  }

  private drawn(x: number, y: number): Geometry | null {
    const { from, path, slack } = this.drawing!;
    const tool = this.tool.value;
    if (tool === "freehand") {
      const at = vertex(x, y);
      const last = path[path.length - 1]!;
      // A vertex for each few pixels of the screen: what the hand did between them nobody can see.
      if (path.length < MOST_VERTICES && Math.hypot(at[0] - last[0], at[1] - last[1]) >= slack / 3) path.push(at);
      return path.length < 3 ? null : { type: "freehand", vertices: [...path], closed: true };
    }
    if (tool === "line") {
      if (Math.hypot(x - from.x, y - from.y) < 0.5) return null;
      return { type: "line", start: vertex(from.x, from.y), end: vertex(x, y) };
    }
    // Areas lie on the borders of pixels.
    const [left, right] = [Math.round(Math.min(x, from.x)), Math.round(Math.max(x, from.x))];
    const [top, bottom] = [Math.round(Math.min(y, from.y)), Math.round(Math.max(y, from.y))];
    if (right - left < 1 || bottom - top < 1) return null;
    const center = vertex((left + right) / 2, (top + bottom) / 2);
    return { type: tool === "ellipse" ? "ellipse" : "rectangle", center, height: bottom - top, width: right - left };
  }

  private sketch(stream: string, geometry: Geometry): void {
    this.scope.rois.draft.value = { stream, revision: 0, roi: { id: "", geometry } };
    this.scope.redraw();
  }

  private async finish(stream: string, geometry: Geometry): Promise<void> {
    this.tool.value = "move";
    const id = await this.scope.putRoi({ stream, revision: 0, roi: { id: "", name: this.scope.rois.newName(), geometry } });
    if (id) this.scope.rois.selected.value = keyOf(stream, id);
    this.scope.redraw();
  }
}
