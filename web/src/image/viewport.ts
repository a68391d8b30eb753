/** What part of an image a pane shows. Corner coordinates: pixel 0 spans 0 to 1; ROIs, which have whole numbers at pixel centres, are half a pixel off. */

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Rect extends Size {
  readonly x: number;
  readonly y: number;
}

export interface Viewport {
  /** The place in the image that is in the middle of the pane. */
  readonly x: number;
  readonly y: number;
  /** Device pixels per pixel of the image. */
  readonly zoom: number;
}

/** The part of a frame to ask for: pixels from (`y0`, `x0`) up to but without (`y1`, `x1`), every `step`-th. */
export interface Crop {
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
  readonly step: number;
}

export const MIN_ZOOM = 1 / 64;
export const MAX_ZOOM = 64;
const LEVELS = [1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

export const clampZoom = (zoom: number): number => Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, zoom));

/** The whole image in the pane. Enlargement is by whole numbers where that loses little, so that all pixels are alike. */
export function fit(image: Size, pane: Size): Viewport {
  const zoom = clampZoom(Math.min(pane.width / image.width, pane.height / image.height));
  return { x: image.width / 2, y: image.height / 2, zoom };
}

/** The device pixel (in the pane) at which image coordinate 0 lies: a whole number, so that pixels of the image never straddle. */
export function origin(view: Viewport, pane: Size): { x: number; y: number } {
  return { x: Math.round(pane.width / 2 - view.x * view.zoom), y: Math.round(pane.height / 2 - view.y * view.zoom) };
}

export function toImage(view: Viewport, pane: Size, x: number, y: number): { x: number; y: number } {
  const at = origin(view, pane);
  return { x: (x - at.x) / view.zoom, y: (y - at.y) / view.zoom };
}

/** Zoom so that what is at (`x`, `y`) of the pane stays there; without the rounding to whole pixels, which many small steps would add up. */
export function zoomAbout(view: Viewport, pane: Size, zoom: number, x: number, y: number): Viewport {
  const to = clampZoom(zoom);
  const by = 1 / view.zoom - 1 / to;
  return { x: view.x + (x - pane.width / 2) * by, y: view.y + (y - pane.height / 2) * by, zoom: to };
}

export function nextLevel(zoom: number, inwards: boolean): number {
  const slack = 1.001;
  if (inwards) return LEVELS.find((level) => level > zoom * slack) ?? MAX_ZOOM;
  return [...LEVELS].reverse().find((level) => level < zoom / slack) ?? MIN_ZOOM;
}

/** Keep at least a bit of the image in the pane. */
export function clampPan(view: Viewport, image: Size): Viewport {
  return { ...view, x: Math.min(image.width, Math.max(0, view.x)), y: Math.min(image.height, Math.max(0, view.y)) };
}

/**
 * What to ask for: the visible part with a small margin, at the coarsest step that still has a sample for each device pixel. Where smaller
 * sizes are stored, a step that these have: a power of two.
 */
export function visibleCrop(view: Viewport, pane: Size, image: Size, levels: number): Crop {
  const coarsest = Math.max(1, Math.floor(1 / view.zoom + 1e-6));
  const step = levels > 1 ? 2 ** Math.floor(Math.log2(coarsest)) : coarsest;
  const margin = 16 * step;
  const a = toImage(view, pane, 0, 0);
  const b = toImage(view, pane, pane.width, pane.height);
  const down = (value: number, most: number): number => Math.min(most, Math.max(0, Math.floor((value - margin) / margin) * margin));
  const up = (value: number, most: number): number => Math.min(most, Math.max(0, Math.ceil((value + margin) / margin) * margin));
  const x0 = Math.min(down(a.x, image.width), Math.max(0, image.width - 1));
  const y0 = Math.min(down(a.y, image.height), Math.max(0, image.height - 1));
  return { x0, y0, x1: Math.max(x0 + 1, up(b.x, image.width)), y1: Math.max(y0 + 1, up(b.y, image.height)), step };
}
