// Bundles the page into a folder: node build.mjs OUT. Only same-origin files, no inline script, no eval: it runs under a strict CSP.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2];
if (!out) {
  console.error("Name the folder to build into: node build.mjs OUT");
  process.exit(2);
}
const target = resolve(out);
await mkdir(target, { recursive: true });
for (const name of await readdir(target)) if (name !== ".gitignore") await rm(join(target, name), { recursive: true });

const result = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  outdir: target,
  bundle: true,
  format: "esm",
  target: ["chrome111", "firefox113", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: true,
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) await copyFile(join(here, "src", name), join(target, name));

// The licences of what was bundled travel with it.
const packages = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (found) packages.add(found[1]);
}
let text = "The page contains these libraries.\n";
for (const name of [...packages].sort()) {
  const folder = join(here, "node_modules", name);
  const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  text += `\n${"-".repeat(72)}\n${name} ${about.version} (${about.license})\n\n`;
  text += file ? await readFile(join(folder, file), "utf8") : `Licence: ${about.license}\n`;
}
await writeFile(join(target, "licences.txt"), text);
