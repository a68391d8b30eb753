import type { Plane } from "../image/plane";

/** A binary message: 128 bytes of header, then pixels. */
export interface Frame {
  readonly plane: Plane;
  readonly stream: number;
  readonly fromHistory: boolean;
  readonly request: number;
  readonly frameId: number;
  readonly monotonicNs: bigint;
  readonly utcMs: number;
  /** When it was handed to the socket, on the host's monotonic clock. */
  readonly sentNs: bigint;
  readonly skipped: number;
  readonly exposureMs: number;
  /** t, c, z, position; -1: unknown. */
  readonly index: readonly [number, number, number, number];
  /** value = sent * scale + offset */
  readonly scale: number;
  readonly offset: number;
}

const MAGIC = 0x3146544d; // "MTF1", little-endian
const KINDS = { 1: "u1", 2: "u2", 3: "f4", 4: "rgb" } as const;

/** The pixels are a view of the message, not a copy, when they lie on a whole address. */
export function decodeFrame(message: ArrayBuffer): Frame {
  const view = new DataView(message);
  if (view.byteLength < 128 || view.getUint32(0, true) !== MAGIC) throw new Error("a binary message that is no frame");
  const start = view.getUint16(4, true);
  const kind = KINDS[view.getUint8(6) as 1 | 2 | 3 | 4];
  if (!kind) throw new Error(`a frame of an unknown type of pixel (${view.getUint8(6)})`);
  const height = view.getUint32(84, true);
  const width = view.getUint32(88, true);
  const Pixels = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array, rgb: Uint8Array }[kind];
  const count = width * height * (kind === "rgb" ? 3 : 1);
  const whole = start % Pixels.BYTES_PER_ELEMENT === 0;
  const data = whole ? new Pixels(message, start, count) : new Pixels(message.slice(start, start + count * Pixels.BYTES_PER_ELEMENT));
  return {
    plane: {
      kind,
      data,
      width,
      height,
      y0: view.getUint32(64, true),
      x0: view.getUint32(68, true),
      step: view.getUint32(80, true),
      frameHeight: view.getUint32(56, true),
      frameWidth: view.getUint32(60, true),
      averaged: (view.getUint8(7) & 4) !== 0,
    },
    stream: view.getUint16(8, true),
    fromHistory: (view.getUint8(7) & 1) !== 0,
    request: view.getUint32(12, true),
    frameId: Number(view.getBigUint64(16, true)),
    monotonicNs: view.getBigInt64(24, true),
    utcMs: Number(view.getBigInt64(32, true)) / 1e6,
    sentNs: view.getBigInt64(40, true),
    skipped: Number(view.getBigUint64(48, true)),
    exposureMs: view.getFloat32(92, true),
    scale: view.getFloat64(96, true),
    offset: view.getFloat64(104, true),
    index: [view.getInt32(112, true), view.getInt32(116, true), view.getInt32(120, true), view.getInt32(124, true)],
  };
}
