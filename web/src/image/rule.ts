/**
 * The one rounding rule between a pixel's value and a colour of a table of 256:
 *
 *     index = floor(clip((v - lo) / (hi - lo), 0, 1) ** gamma * 255 + 0.5)
 *
 * in double precision, as NumPy has it. NaN is index 0. Graphics cards divide and take powers with errors of their own, so the
 * shader never does what decides: for whole numbers it looks the index up in a table of all 65,536 values, for floats it estimates
 * the index and then corrects it against the 255 exact values at which the index changes.
 */

export interface Window {
  readonly lo: number;
  readonly hi: number;
  readonly gamma: number;
}

export function indexOf(value: number, { lo, hi, gamma }: Window): number {
  const unit = Math.min(1, Math.max(0, (value - lo) / (hi - lo)));
  const index = Math.floor((gamma === 1 ? unit : unit ** gamma) * 255 + 0.5);
  return index >= 0 ? index : 0;
}

/** The index of each value of 16 bits (and so of 8). */
export function tableOf(window: Window): Uint8Array {
  const table = new Uint8Array(65536).fill(255);
  const first = Math.min(65536, Math.max(0, Math.floor(window.lo)));
  table.fill(0, 0, first);
  for (let value = first; value < 65536; value++) {
    const index = indexOf(value, window);
    table[value] = index;
    if (index === 255) break;
  }
  return table;
}

const bits = new DataView(new ArrayBuffer(4));

/** The next number of 32 bits above (`up`) or below a finite one. */
export function nextFloat(value: number, up: boolean): number {
  if (value === 0) return up ? 1.401298464324817e-45 : -1.401298464324817e-45;
  bits.setFloat32(0, value);
  bits.setInt32(0, bits.getInt32(0) + (value > 0 === up ? 1 : -1));
  return bits.getFloat32(0);
}

/** For each index 1..255 the smallest number of 32 bits that has it; entry 0 is -infinity. */
export function thresholdsOf(window: Window): Float32Array {
  const found = new Float32Array(256).fill(-Infinity);
  for (let index = 1; index < 256; index++) {
    let edge = Math.fround(window.lo + ((index - 0.5) / 255) ** (1 / window.gamma) * (window.hi - window.lo));
    for (let tries = 0; tries < 64 && indexOf(edge, window) >= index; tries++) edge = nextFloat(edge, false);
    for (let tries = 0; tries < 64 && indexOf(edge, window) < index; tries++) edge = nextFloat(edge, true);
    found[index] = edge;
  }
  return found;
}
