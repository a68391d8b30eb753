import data from "../../../src/mutoscope/viewers/luts.json";

const HEX: Record<string, string> = data.luts;

/** The names, in the order of the menu. */
export const LUT_NAMES: readonly string[] = Object.keys(HEX);

const parsed = new Map<string, Uint8Array>();

/** 256 colours as RGBA bytes. */
export function lutOf(name: string): Uint8Array {
  let lut = parsed.get(name);
  if (!lut) {
    const hex = HEX[name] ?? HEX["grays"]!;
    lut = new Uint8Array(1024);
    for (let index = 0; index < 256; index++) {
      for (let part = 0; part < 3; part++) {
        const at = index * 6 + part * 2;
        lut[index * 4 + part] = parseInt(hex.slice(at, at + 2), 16);
      }
      lut[index * 4 + 3] = 255;
    }
    parsed.set(name, lut);
  }
  return lut;
}
