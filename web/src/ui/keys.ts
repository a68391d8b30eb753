import { signal } from "@preact/signals";
import type { ScopeView } from "../model/scope";
import type { Where } from "../model/stream";
import { download } from "./export";
import type { Stage } from "./stage";
import { TOOLS } from "./tools";

export interface Shortcut {
  keys: string[];
  shown: string;
  what: string;
  group: "Images" | "Time" | "ROIs" | "Scope";
  /** Where alone it means something: a scope that runs, one that may be controlled, a stored data set, or a plate. */
  of?: "live" | "control" | "stored" | "plate";
  run(event: KeyboardEvent): void;
}

export function fits({ of }: Shortcut, scope: ScopeView): boolean {
  if (of === "plate") return scope.hello.value?.plate !== undefined;
  if (of === "control" && scope.hello.value?.role === "view") return false;
  return of === undefined || (of === "stored") === scope.stored.value;
}

export function shortcuts(scope: ScopeView, stage: Stage, help: () => void): Shortcut[] {
  const active = () => scope.active.value;
  const list: Shortcut[] = [
    { keys: ["f", "0"], shown: "f", what: "Fit the image", group: "Images", run: () => stage.fit() },
    { keys: ["1"], shown: "1", what: "One pixel to one pixel", group: "Images", run: () => stage.oneToOne() },
    { keys: ["+", "="], shown: "+", what: "Zoom in", group: "Images", run: () => stage.zoom(true) },
    { keys: ["-"], shown: "−", what: "Zoom out", group: "Images", run: () => stage.zoom(false) },
    { keys: ["a"], shown: "a", what: "Automatic contrast", group: "Images", run: () => active()?.contrast.follow("auto") },
    {
      keys: ["o"],
      shown: "o",
      what: "Cameras side by side or over each other",
      group: "Images",
      run: () => stage.setLayout(stage.layout.value === "side" ? "over" : "side"),
    },
    {
      keys: ["j"],
      shown: "j",
      what: "Pan and zoom alike cameras together",
      group: "Images",
      run: () => void (stage.linked.value = !stage.linked.peek()),
    },
    { keys: ["c"], shown: "c", what: "Next camera", group: "Images", run: () => nextCamera(scope) },
    { keys: ["s"], shown: "s", what: "Save what is seen (PNG)", group: "Images", run: () => void savePicture(scope, stage) },
    { keys: ["["], shown: "[", what: "The field before, in a plate", group: "Images", of: "plate", run: () => nextField(scope, -1) },
    { keys: ["]"], shown: "]", what: "The next field, in a plate", group: "Images", of: "plate", run: () => nextField(scope, 1) },
    { keys: [" "], shown: "Space", what: "Pause, or go on live", group: "Time", of: "live", run: () => togglePause(scope) },
    { keys: [" "], shown: "Space", what: "Play what is stored, or stop", group: "Time", of: "stored", run: () => togglePlay(scope) },
    { keys: ["k"], shown: "k", what: "Play what was recorded from here on, or stop", group: "Time", of: "live", run: () => togglePlay(scope) },
    { keys: [","], shown: ",", what: "One frame back", group: "Time", run: () => void step(scope, -1) },
    { keys: ["."], shown: ".", what: "One frame on", group: "Time", run: () => void step(scope, 1) },
    ...TOOLS.map(
      ({ tool, title, key }): Shortcut => ({ keys: [key], shown: key, what: title, group: "ROIs", of: "control", run: () => stage.tools.choose(tool) }),
    ),
    {
      keys: ["Delete", "Backspace"],
      shown: "Del",
      what: "Remove the selected ROI",
      group: "ROIs",
      of: "control",
      run: () => void (scope.rois.chosen && scope.removeRoi(scope.rois.chosen)),
    },
    {
      keys: ["Escape"],
      shown: "Esc",
      what: "Leave off drawing; deselect",
      group: "ROIs",
      of: "control",
      run: () => {
        if (!stage.tools.busy) scope.rois.selected.value = null;
        stage.tools.choose("move");
      },
    },
    { keys: ["t"], shown: "t", what: "Take or give back control", group: "Scope", of: "control", run: () => void toggleLease(scope) },
    { keys: ["?"], shown: "?", what: "These keys", group: "Scope", run: help },
  ];
  return list;
}

/** Keys that act while the image has the focus; they are told in the overlay of keys, too. */
export const STAGE_KEYS: readonly { shown: string; what: string }[] = [
  { shown: "← ↑ → ↓", what: "Move the selected ROI by a pixel (Shift: 10; Alt: its size), else pan" },
  { shown: "n / b", what: "Select the next or the former ROI" },
  { shown: "Enter", what: "Put the tool's shape into the middle; end a polygon" },
];

export function onStageKey(event: KeyboardEvent, scope: ScopeView, stage: Stage): boolean {
  const stream = scope.active.value;
  if (!stream || event.ctrlKey || event.metaKey) return false;
  const far = event.shiftKey ? 10 : 1;
  const arrows: Record<string, [number, number]> = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const arrow = arrows[event.key];
  if (arrow) {
    const [dy, dx] = arrow;
    if (!stage.tools.nudge(dy * far, dx * far, event.altKey)) stage.pan(dx * 40 * far, dy * 40 * far);
    return true;
  }
  if (event.key === "n" || event.key === "b") {
    stage.tools.selectNext(stream, event.key === "b");
    return true;
  }
  if (event.key === "Enter") {
    if (stage.tools.busy) stage.tools.close(stream.name);
    else stage.tools.addInMiddle(stream);
    return true;
  }
  return false;
}

export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button", "range"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || target.isContentEditable;
}

export function nextCamera(scope: ScopeView): void {
  const streams = scope.listed.value;
  const at = streams.findIndex((each) => each === scope.active.value);
  const next = streams[(at + 1) % Math.max(1, streams.length)];
  if (next) scope.activeName.value = next.name;
}

export function nextField(scope: ScopeView, by: number): void {
  const images = scope.hello.value?.plate?.wells.flatMap((well) => well.images) ?? [];
  const at = images.findIndex(({ image }) => image === scope.field.value);
  const next = images[at + by];
  if (next) scope.chooseField(next.image);
}

export function togglePause(scope: ScopeView): void {
  const live = scope.active.value?.when.value === "live";
  playing.value = false;
  for (const stream of scope.streams.value) {
    if (live) stream.pause();
    else stream.live();
  }
}

/** Whether what was recorded is being played. */
export const playing = signal(false);

const PLAYED_MS = 40;
/** Between two planes along an axis of a viewer. */
const AXIS_MS = 100;
/** Where a frame has no time (a plane of a plate), or the next one is further away than that, this long is waited for it. */
const STILL_MS = { untimed: 200, timed: 1000 };

/** Play as fast as it was recorded, from what is seen on, or from the beginning when that is the end. */
export async function togglePlay(scope: ScopeView): Promise<void> {
  if (playing.peek()) {
    playing.value = false;
    return;
  }
  if (scope.viewer.peek()) {
    await playAxis(scope);
    return;
  }
  const stream = scope.active.peek();
  if (!stream || stream.about.peek().history === "none") return;
  playing.value = true;
  const last = (): number => scope.state.peek()?.streams[stream.name]?.history?.last_id ?? stream.index.peek()?.last_id ?? Infinity;
  if ((stream.frame.peek()?.frameId ?? 0) >= last()) await goTo(scope, { number: 0 });
  let from = stream.frame.peek();
  let began = performance.now();
  let changed = began;
  let seen = from?.frameId;
  while (playing.peek() && scope.active.peek() === stream && stream.frame.peek()) {
    await new Promise((resume) => window.setTimeout(resume, PLAYED_MS));
    const now = performance.now();
    const still = from?.utcMs ? STILL_MS.timed : STILL_MS.untimed;
    if (!from?.utcMs || now - changed > still) {
      if (now - changed < still) continue;
      await step(scope, 1);
      [from, began] = [stream.frame.peek(), performance.now()];
    } else await goTo(scope, { utc_ms: from.utcMs + (now - began) });
    const frame = stream.frame.peek();
    if (frame && frame.frameId !== seen) [seen, changed] = [frame.frameId, performance.now()];
    if ((frame?.frameId ?? 0) >= last()) {
      if (!scope.stored.peek()) for (const each of scope.streams.peek()) each.live();
      break;
    }
  }
  playing.value = false;
}

/** Show a frame of the active stream, and of the others the nearest in time. */
export async function goTo(scope: ScopeView, where: Where): Promise<void> {
  const active = scope.active.value;
  if (!active) return;
  for (const stream of scope.streams.value) stream.pause();
  await active.seek(where);
  const frame = active.frame.value;
  if (!frame || scope.hello.value?.plate) return;
  const same = frame.utcMs ? { utc_ms: frame.utcMs } : { frame_id: frame.frameId };
  for (const stream of scope.shown.value) if (stream !== active) void stream.seek(same);
}

/** Play along the axis of the keys, around and around, as fast as the planes of the active layer come. */
async function playAxis(scope: ScopeView): Promise<void> {
  const axis = scope.layers.axis.peek();
  if (!axis) return;
  playing.value = true;
  while (playing.peek() && scope.layers.axis.peek()?.name === axis.name) {
    await new Promise((resume) => window.setTimeout(resume, AXIS_MS));
    await scope.active.peek()?.settled();
    if (playing.peek()) scope.layers.step(1, true);
  }
  playing.value = false;
}

export async function step(scope: ScopeView, by: number): Promise<void> {
  if (scope.viewer.peek()) {
    playing.value = false;
    scope.layers.step(by);
    return;
  }
  const active = scope.active.value;
  await active?.settled();
  if (active?.frame.value) await goTo(scope, active.next(by));
}

export async function savePicture(scope: ScopeView, stage: Stage): Promise<void> {
  const stream = scope.active.value;
  if (!stream) return;
  const id = stream.frame.value?.frameId ?? 0;
  download(`${stream.title}-${id}.png`, await stage.picture());
}

export async function toggleLease(scope: ScopeView): Promise<void> {
  if (scope.mayControl.value) await scope.hold(!scope.lease.value?.yours);
}
