import type { Marks } from "../model/tables";
import { anchor, handles, outlines } from "../model/rois";
import type { PlacedRoi } from "../net/messages";
import { origin, type Rect, type Size, type Viewport } from "./viewport";

/** Colours of Okabe and Ito, which differ for all kinds of colour vision; the darker ones lightened for a dark ground. */
export const SERIES = ["#56b4e9", "#e69f00", "#1fb98d", "#f0e442", "#cc79a7", "#e8743b", "#9fb0e8"];
export const colourOfId = (id: number): string => SERIES[((id % SERIES.length) + SERIES.length) % SERIES.length]!;

/** The radius of a mark: what it marks is seen within. */
const RING = 9;

const HALO = "rgb(0 0 0 / 0.7)";

export interface OverlayStyle {
  ids: boolean;
  tails: boolean;
}

/** Draws vectors over one pane; lengths on the screen are in CSS pixels, `ratio` device pixels each. */
export class Pen {
  constructor(
    private readonly context: CanvasRenderingContext2D,
    private readonly rect: Rect,
    private readonly view: Viewport,
    private readonly ratio: number,
  ) {}

  begin(): void {
    const { context, rect } = this;
    context.save();
    context.beginPath();
    context.rect(rect.x, rect.y, rect.width, rect.height);
    context.clip();
    context.lineJoin = "round";
    context.font = `${12 * this.ratio}px system-ui, sans-serif`;
  }

  end(): void {
    this.context.restore();
  }

  /** From (x, y) with whole numbers at pixel centres to the canvas. */
  place(x: number, y: number): [number, number] {
    const at = origin(this.view, this.rect);
    return [this.rect.x + at.x + (x + 0.5) * this.view.zoom, this.rect.y + at.y + (y + 0.5) * this.view.zoom];
  }

  private stroke(colour: string, width: number, dash: number[] = []): void {
    const { context, ratio } = this;
    context.setLineDash(dash.map((each) => each * ratio));
    context.strokeStyle = HALO;
    context.lineWidth = (width + 2) * ratio;
    context.stroke();
    context.strokeStyle = colour;
    context.lineWidth = width * ratio;
    context.stroke();
    context.setLineDash([]);
  }

  text(words: string, x: number, y: number, colour: string): void {
    const { context, ratio } = this;
    context.lineWidth = 3 * ratio;
    context.strokeStyle = HALO;
    context.strokeText(words, x, y);
    context.fillStyle = colour;
    context.fillText(words, x, y);
  }

  marks(marks: Marks, colour: string, style: OverlayStyle): void {
    const { context, ratio } = this;
    if (style.tails) {
      for (const { id, path } of marks.tails) {
        context.beginPath();
        path.forEach(({ x, y }, index) => {
          const [px, py] = this.place(x, y);
          if (index) context.lineTo(px, py);
          else context.moveTo(px, py);
        });
        this.stroke(colourOfId(id), 1.5);
      }
    }
    for (const { x, y, id } of marks.points) {
      const [px, py] = this.place(x, y);
      context.beginPath();
      context.arc(px, py, RING * ratio, 0, 2 * Math.PI);
      const own = id === null ? colour : colourOfId(id);
      this.stroke(own, 1.5);
      if (style.ids && id !== null) this.text(String(id), px + (RING + 2) * ratio, py - (RING - 2) * ratio, own);
    }
  }

  roi(placed: PlacedRoi, selected: boolean, draft: boolean): void {
    const { context, ratio } = this;
    const { geometry, name, stroke } = placed.roi;
    // No colour of its own is the empty text.
    const colour = selected ? "#ffffff" : stroke?.color || "#f0e442";
    for (const { path, closed, dots } of outlines(geometry)) {
      context.beginPath();
      path.forEach(([y, x], index) => {
        const [px, py] = this.place(x, y);
        if (dots) {
          context.moveTo(px - 6 * ratio, py);
          context.lineTo(px + 6 * ratio, py);
          context.moveTo(px, py - 6 * ratio);
          context.lineTo(px, py + 6 * ratio);
        } else if (index) context.lineTo(px, py);
        else context.moveTo(px, py);
      });
      if (closed) context.closePath();
      this.stroke(colour, selected ? 2 : 1.5, draft ? [5, 4] : []);
    }
    if (selected) {
      for (const [y, x] of handles(geometry)) {
        const [px, py] = this.place(x, y);
        context.beginPath();
        context.rect(px - 4 * ratio, py - 4 * ratio, 8 * ratio, 8 * ratio);
        context.fillStyle = "#0d1013";
        context.fill();
        this.stroke("#ffffff", 1.5);
      }
    }
    const [top, left] = anchor(geometry);
    const [x, y] = this.place(left, top);
    const words = name ? name : placed.roi.id;
    if (words) this.text(words, x, y - 6 * ratio, colour);
  }

  scaleBar(pixelSizeUm: number | null): void {
    const bar = scaleBar(this.view.zoom / this.ratio, pixelSizeUm, this.rect.width / this.ratio);
    const { context, ratio, rect } = this;
    const width = bar.length * this.view.zoom;
    const x = rect.x + rect.width - 16 * ratio - width;
    const y = rect.y + rect.height - 18 * ratio;
    context.fillStyle = HALO;
    context.fillRect(x - 2 * ratio, y - 2 * ratio, width + 4 * ratio, 7 * ratio);
    context.fillStyle = "#ffffff";
    context.fillRect(x, y, width, 3 * ratio);
    context.textAlign = "center";
    this.text(bar.text, x + width / 2, y - 7 * ratio, "#ffffff");
    context.textAlign = "start";
  }

  label(words: string): void {
    const { rect, ratio } = this;
    this.text(words, rect.x + 12 * ratio, rect.y + 20 * ratio, "#d6dbe0");
  }
}

/** A round length near a fifth of the pane: 1, 2 or 5 times a power of ten. `zoom` is CSS pixels per pixel of the image. */
export function scaleBar(zoom: number, pixelSizeUm: number | null, width: number): { length: number; text: string } {
  const unit = pixelSizeUm ?? 1;
  const target = (Math.min(160, width / 4) / zoom) * unit;
  const power = 10 ** Math.floor(Math.log10(target));
  const round = [5, 2, 1].map((each) => each * power).find((each) => each <= target) ?? power;
  const length = round / unit;
  if (pixelSizeUm === null) return { length, text: `${trimmed(round)} px` };
  if (round >= 1000) return { length, text: `${trimmed(round / 1000)} mm` };
  if (round < 0.1) return { length, text: `${trimmed(round * 1000)} nm` };
  return { length, text: `${trimmed(round)} µm` };
}

const trimmed = (value: number): string => String(Number(value.toPrecision(3)));

/** Panes for so many images: the grid that shows them largest. */
export function grid(count: number, whole: Size, gap: number): Rect[] {
  let best: { columns: number; size: number } = { columns: 1, size: 0 };
  for (let columns = 1; columns <= Math.max(1, count); columns++) {
    const rows = Math.ceil(count / columns);
    const size = Math.min((whole.width - gap * (columns - 1)) / columns, (whole.height - gap * (rows - 1)) / rows);
    if (size > best.size) best = { columns, size };
  }
  const { columns } = best;
  const rows = Math.max(1, Math.ceil(count / columns));
  const width = Math.max(1, Math.floor((whole.width - gap * (columns - 1)) / columns));
  const height = Math.max(1, Math.floor((whole.height - gap * (rows - 1)) / rows));
  return Array.from({ length: count }, (_, index) => ({
    x: (index % columns) * (width + gap),
    y: Math.floor(index / columns) * (height + gap),
    width,
    height,
  }));
}
