import type { Connection } from "./connection";

/** Bytes of a part: in base64 it fits into a message. */
const PART = 600_000;

/** Tell what is on the screen: its colours, deflated, in parts. */
export async function sendPicture(request: number, { data, width, height }: ImageData, link: Connection): Promise<void> {
  const colours = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    colours[to++] = data[from]!;
    colours[to++] = data[from + 1]!;
    colours[to++] = data[from + 2]!;
  }
  const stream = new Blob([colours]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const parts = Math.max(1, Math.ceil(packed.length / PART));
  for (let part = 0; part < parts; part++) {
    let binary = "";
    for (let at = part * PART; at < Math.min(packed.length, (part + 1) * PART); at += 30000) {
      binary += String.fromCharCode(...packed.subarray(at, Math.min(at + 30000, (part + 1) * PART)));
    }
    link.send({ type: "picture", request, shape: [height, width], part, parts, data: btoa(binary) });
  }
}
