// Reads images with zarrita.js: node ZarritaCheck.mjs FRAMES PATH...  prints a JSON object, path → {ids, frames: [sha256, …]} or {error}.
import { createHash } from "node:crypto";
import * as zarr from "zarrita";
import FileSystemStore from "@zarrita/storage/fs";

async function look(path, count) {
  const root = zarr.root(new FileSystemStore(path));
  const group = await zarr.open(root, { kind: "group" });
  const image = (group.attrs.ome ?? group.attrs).multiscales[0];
  const level = await zarr.open(root.resolve(image.datasets[0].path), { kind: "array" });
  let ids = null;
  try {
    const stored = await zarr.get(await zarr.open(root.resolve("frames/frame_id"), { kind: "array" }));
    ids = Array.from(stored.data, Number).filter((id) => id !== 0);
  } catch (error) {
    if (!(error instanceof zarr.NotFoundError)) throw error;
  }
  const frames = [];
  for (let t = 0; t < count; t++) {
    const place = level.shape.map((_, axis) => (axis === 0 ? t : axis < level.shape.length - 2 ? 0 : null));
    const { data } = await zarr.get(level, place);
    frames.push(createHash("sha256").update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)).digest("hex"));
  }
  return { ids, frames };
}

const [count, ...paths] = process.argv.slice(2);
const found = {};
for (const path of paths) {
  try {
    found[path] = await look(path, Number(count));
  } catch (error) {
    found[path] = { error: String(error) };
  }
}
console.log(JSON.stringify(found));
