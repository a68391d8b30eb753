// What the tests of drawing call in a real browser: one picture of given planes, as colours. Not part of the page.
import type { Plane } from "../src/image/plane";
import { Renderer } from "../src/image/renderer";
import type { Window } from "../src/image/rule";
import type { Rect, Viewport } from "../src/image/viewport";
import { visibleCrop } from "../src/image/viewport";

interface Given {
  name: string;
  kind: Plane["kind"];
  /** The samples, little-endian, in base64. */
  samples: string;
  width: number;
  height: number;
  x0: number;
  y0: number;
  step: number;
  window: Window;
  lut: string;
}

const canvas = document.createElement("canvas");
document.body.append(canvas);
let renderer: Renderer | null = null;

const bytesOf = (text: string): ArrayBuffer => Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer;

export function draw(size: [number, number], rect: Rect, view: Viewport, planes: Given[]): string {
  [canvas.width, canvas.height] = size;
  renderer ??= new Renderer(canvas, () => undefined);
  for (const { name, kind, samples, window, lut, ...place } of planes) {
    const Pixels = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array }[kind];
    renderer.setPlane(name, { kind, data: new Pixels(bytesOf(samples)), frameWidth: 0, frameHeight: 0, averaged: false, ...place });
    renderer.setLook(name, window, lut);
  }
  renderer.draw([{ rect, view, layers: planes.map(({ name }) => name) }]);
  const colours = renderer.read({ x: 0, y: 0, width: size[0], height: size[1] });
  let text = "";
  for (let at = 0; at < colours.length; at += 8192) text += String.fromCharCode(...colours.subarray(at, at + 8192));
  return btoa(text);
}

export { visibleCrop };
