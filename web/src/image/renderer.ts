import { lutOf } from "./luts";
import type { Plane } from "./plane";
import { tableOf, thresholdsOf, type Window } from "./rule";
import { origin, type Rect, type Viewport } from "./viewport";

/** A pane of the canvas, in device pixels from the upper left, and what is drawn in it; several layers are added. */
export interface Pane {
  readonly rect: Rect;
  readonly view: Viewport;
  readonly layers: readonly string[];
}

const VERTEX = `#version 300 es
void main() {
  vec2 corner = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2);
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

// From the pixel of the screen to the sample: `place` scales and shifts; nothing is interpolated.
const HEAD = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
precision highp sampler2D;
uniform vec4 place;
uniform ivec2 size;
uniform sampler2D lut;
out vec4 colour;
ivec2 sampleAt() {
  ivec2 at = ivec2(floor(gl_FragCoord.xy * place.xy + place.zw));
  if (any(lessThan(at, ivec2(0))) || any(greaterThanEqual(at, size))) discard;
  return at;
}`;

const WHOLE = `${HEAD}
uniform usampler2D image;
uniform usampler2D table;
void main() {
  int value = int(texelFetch(image, sampleAt(), 0).r);
  int index = int(texelFetch(table, ivec2(value & 255, value >> 8), 0).r);
  colour = texelFetch(lut, ivec2(index, 0), 0);
}`;

// Colours are drawn as they are.
const COLOURS = `${HEAD}
uniform usampler2D image;
void main() {
  ivec2 at = sampleAt();
  ivec2 first = ivec2(at.x * 3, at.y);
  colour = vec4(
    float(texelFetch(image, first, 0).r), float(texelFetch(image, first + ivec2(1, 0), 0).r), float(texelFetch(image, first + ivec2(2, 0), 0).r), 255.0
  ) / 255.0;
}`;

// The estimate may be off by one where the card's arithmetic differs from NumPy's; comparisons with the exact edges mend that.
const FLOATS = `${HEAD}
uniform sampler2D image;
uniform sampler2D edges;
uniform vec3 window;
void main() {
  float value = texelFetch(image, sampleAt(), 0).r;
  int index = 0;
  if (value == value) {
    float unit = clamp((value - window.x) / (window.y - window.x), 0.0, 1.0);
    float raised = unit <= 0.0 ? 0.0 : pow(unit, window.z);
    index = clamp(int(raised * 255.0 + 0.5), 0, 255);
    for (int turn = 0; turn < 4; turn++) {
      if (index > 0 && value < texelFetch(edges, ivec2(index, 0), 0).r) index--;
      else if (index < 255 && value >= texelFetch(edges, ivec2(index + 1, 0), 0).r) index++;
    }
  }
  colour = texelFetch(lut, ivec2(index, 0), 0);
}`;

interface Program {
  readonly handle: WebGLProgram;
  uniform(name: string): WebGLUniformLocation | null;
}

interface Layer {
  plane: Plane | null;
  window: Window;
  lut: string;
  fresh: { plane: boolean; window: boolean; lut: boolean };
  textures: { image: WebGLTexture; rule: WebGLTexture; lut: WebGLTexture } | null;
  /** What the image texture was made for. */
  form: string;
}

const FORMATS = {
  u1: ["R8UI", "RED_INTEGER", "UNSIGNED_BYTE"],
  u2: ["R16UI", "RED_INTEGER", "UNSIGNED_SHORT"],
  f4: ["R32F", "RED", "FLOAT"],
  rgb: ["R8UI", "RED_INTEGER", "UNSIGNED_BYTE"],
} as const;

/** Draws planes through window, gamma and LUT, one WebGL 2 context for all panes. */
export class Renderer {
  private readonly gl: WebGL2RenderingContext;
  private readonly layers = new Map<string, Layer>();
  private programs: { whole: Program; floats: Program; colours: Program } | null = null;
  private lost = false;
  readonly maxSize: number;

  constructor(
    readonly canvas: HTMLCanvasElement,
    /** Called when the graphics card has gone away (`true`) and when it is back: then all is to be drawn again. */
    onLost: (lost: boolean) => void,
    /** What is around the images, parts of 255. */
    private readonly ground: readonly [number, number, number] = [0, 0, 0],
  ) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, stencil: false });
    if (!gl) throw new Error("This browser offers no WebGL 2, which the page draws with.");
    this.gl = gl;
    this.maxSize = gl.getParameter(gl.MAX_TEXTURE_SIZE) as number;
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.lost = true;
      this.programs = null;
      onLost(true);
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this.lost = false;
      for (const layer of this.layers.values()) {
        layer.textures = null;
        layer.form = "";
        layer.fresh = { plane: true, window: true, lut: true };
      }
      onLost(false);
    });
  }

  setPlane(name: string, plane: Plane): void {
    const layer = this.layer(name);
    if (layer.plane === plane) return;
    if ((layer.plane?.kind === "f4") !== (plane.kind === "f4")) layer.fresh.window = true;
    layer.plane = plane;
    layer.fresh.plane = true;
  }

  /** Let go of what is not drawn any more. */
  keep(names: ReadonlySet<string>): void {
    for (const [name, layer] of this.layers) {
      if (names.has(name)) continue;
      if (layer.textures && !this.lost) for (const texture of Object.values(layer.textures)) this.gl.deleteTexture(texture);
      this.layers.delete(name);
    }
  }

  /** The window is in units of what was sent. */
  setLook(name: string, window: Window, lut: string): void {
    const layer = this.layer(name);
    const before = layer.window;
    if (before.lo !== window.lo || before.hi !== window.hi || before.gamma !== window.gamma) {
      layer.window = window;
      layer.fresh.window = true;
    }
    if (layer.lut !== lut) {
      layer.lut = lut;
      layer.fresh.lut = true;
    }
  }

  draw(panes: readonly Pane[]): void {
    if (this.lost) return;
    const gl = this.gl;
    this.programs ??= { whole: this.program(WHOLE), floats: this.program(FLOATS), colours: this.program(COLOURS) };
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(this.ground[0] / 255, this.ground[1] / 255, this.ground[2] / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.SCISSOR_TEST);
    gl.blendFunc(gl.ONE, gl.ONE);
    for (const pane of panes) {
      const { rect } = pane;
      const bottom = this.canvas.height - rect.y - rect.height;
      gl.viewport(rect.x, bottom, rect.width, rect.height);
      gl.scissor(rect.x, bottom, rect.width, rect.height);
      gl.disable(gl.BLEND);
      for (const name of pane.layers) {
        this.drawLayer(this.layer(name), pane);
        gl.enable(gl.BLEND);
      }
    }
  }

  /** The colours of a rectangle as RGBA rows from the top, of what was drawn in this very task. */
  read(rect: Rect): Uint8Array {
    const gl = this.gl;
    const flipped = new Uint8Array(rect.width * rect.height * 4);
    gl.readPixels(rect.x, this.canvas.height - rect.y - rect.height, rect.width, rect.height, gl.RGBA, gl.UNSIGNED_BYTE, flipped);
    const rows = new Uint8Array(flipped.length);
    const line = rect.width * 4;
    for (let y = 0; y < rect.height; y++) rows.set(flipped.subarray((rect.height - 1 - y) * line, (rect.height - y) * line), y * line);
    return rows;
  }

  private layer(name: string): Layer {
    let layer = this.layers.get(name);
    if (!layer) {
      layer = {
        plane: null,
        window: { lo: 0, hi: 65535, gamma: 1 },
        lut: "grays",
        fresh: { plane: false, window: true, lut: true },
        textures: null,
        form: "",
      };
      this.layers.set(name, layer);
    }
    return layer;
  }

  private drawLayer(layer: Layer, { rect, view }: Pane): void {
    const { plane } = layer;
    if (!plane || !this.programs || plane.width === 0 || plane.height === 0) return;
    const gl = this.gl;
    layer.textures ??= { image: this.texture(), rule: this.texture(), lut: this.texture() };
    this.upload(layer, plane, layer.textures);
    const floats = plane.kind === "f4";
    const program = floats ? this.programs.floats : plane.kind === "rgb" ? this.programs.colours : this.programs.whole;
    gl.useProgram(program.handle);
    const units: [string, WebGLTexture][] = [
      ["image", layer.textures.image],
      [floats ? "edges" : "table", layer.textures.rule],
      ["lut", layer.textures.lut],
    ];
    units.forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(program.uniform(name), unit);
    });
    // image x = (device x + 0.5 - origin) / zoom; sample = (image x - x0) / step. gl_FragCoord has the half pixel, and y upwards.
    const at = origin(view, rect);
    const scale = 1 / (view.zoom * plane.step);
    const top = this.canvas.height - rect.y;
    gl.uniform4f(
      program.uniform("place"),
      scale,
      -scale,
      -(rect.x + at.x) * scale - plane.x0 / plane.step,
      (top - at.y) * scale - plane.y0 / plane.step,
    );
    gl.uniform2i(program.uniform("size"), plane.width, plane.height);
    if (floats) gl.uniform3f(program.uniform("window"), layer.window.lo, layer.window.hi, layer.window.gamma);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  private upload(layer: Layer, plane: Plane, textures: NonNullable<Layer["textures"]>): void {
    const gl = this.gl;
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.activeTexture(gl.TEXTURE0);
    if (layer.fresh.plane) {
      const [internal, format, type] = FORMATS[plane.kind];
      const form = `${plane.kind} ${plane.width} ${plane.height}`;
      // A row of colours is a row of three times as many bytes.
      const columns = plane.width * (plane.kind === "rgb" ? 3 : 1);
      gl.bindTexture(gl.TEXTURE_2D, textures.image);
      if (layer.form === form) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, columns, plane.height, gl[format], gl[type], plane.data);
      else gl.texImage2D(gl.TEXTURE_2D, 0, gl[internal], columns, plane.height, 0, gl[format], gl[type], plane.data);
      layer.form = form;
      layer.fresh.plane = false;
    }
    if (layer.fresh.window) {
      gl.bindTexture(gl.TEXTURE_2D, textures.rule);
      if (plane.kind === "f4") gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, 256, 1, 0, gl.RED, gl.FLOAT, thresholdsOf(layer.window));
      else gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8UI, 256, 256, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, tableOf(layer.window));
      layer.fresh.window = false;
    }
    if (layer.fresh.lut) {
      gl.bindTexture(gl.TEXTURE_2D, textures.lut);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, lutOf(layer.lut));
      layer.fresh.lut = false;
    }
  }

  private texture(): WebGLTexture {
    const gl = this.gl;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
    return texture;
  }

  private program(fragment: string): Program {
    const gl = this.gl;
    const handle = gl.createProgram();
    for (const [kind, text] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, fragment],
    ] as const) {
      const shader = gl.createShader(kind);
      if (!shader) throw new Error("WebGL made no shader");
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(handle, shader);
    }
    gl.linkProgram(handle);
    if (!gl.getProgramParameter(handle, gl.LINK_STATUS)) throw new Error(`WebGL: ${gl.getProgramInfoLog(handle) ?? "no program"}`);
    const places = new Map<string, WebGLUniformLocation | null>();
    return {
      handle,
      uniform: (name) => {
        if (!places.has(name)) places.set(name, gl.getUniformLocation(handle, name));
        return places.get(name) ?? null;
      },
    };
  }
}
