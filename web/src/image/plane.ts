/** What one message of pixels holds: every `step`-th pixel of a part of a frame, from pixel (`y0`, `x0`) on. */
export interface Plane {
  readonly kind: "u1" | "u2" | "f4" | "rgb";
  readonly data: Uint8Array | Uint16Array | Float32Array;
  /** Samples in a row, and rows. */
  readonly width: number;
  readonly height: number;
  readonly x0: number;
  readonly y0: number;
  readonly step: number;
  /** The whole frame, in pixels. */
  readonly frameWidth: number;
  readonly frameHeight: number;
  /** Whether samples are means of pixels around, of a stored smaller size, and no pixel's own value. */
  readonly averaged: boolean;
}

/** The value of the pixel that holds a place (corner coordinates: pixel 0 spans 0 to 1), if that very pixel was sent. */
export function valueAt(plane: Plane, x: number, y: number): number | null {
  if (plane.averaged || plane.kind === "rgb") return null;
  const column = Math.floor(x) - plane.x0;
  const row = Math.floor(y) - plane.y0;
  if (column < 0 || row < 0 || column % plane.step || row % plane.step) return null;
  const sampleX = column / plane.step;
  const sampleY = row / plane.step;
  if (sampleX >= plane.width || sampleY >= plane.height) return null;
  return plane.data[sampleY * plane.width + sampleX] ?? null;
}
