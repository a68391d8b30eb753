import type { ScopeView } from "../model/scope";
import { download } from "./export";
import type { Stage } from "./stage";
import { TOOLS } from "./tools";

export interface Shortcut {
  keys: string[];
  shown: string;
  what: string;
  group: "Images" | "Time" | "ROIs" | "Scope";
  run(event: KeyboardEvent): void;
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
    { keys: ["c"], shown: "c", what: "Next camera", group: "Images", run: () => nextCamera(scope) },
    { keys: ["s"], shown: "s", what: "Save what is seen (PNG)", group: "Images", run: () => void savePicture(scope, stage) },
    { keys: [" "], shown: "Space", what: "Pause, or go on live", group: "Time", run: () => togglePause(scope) },
    { keys: [","], shown: ",", what: "One frame back", group: "Time", run: () => step(scope, -1) },
    { keys: ["."], shown: ".", what: "One frame on", group: "Time", run: () => step(scope, 1) },
    ...TOOLS.map(
      ({ tool, title, key }): Shortcut => ({ keys: [key], shown: key, what: title, group: "ROIs", run: () => stage.tools.choose(tool) }),
    ),
    {
      keys: ["Delete", "Backspace"],
      shown: "Del",
      what: "Remove the selected ROI",
      group: "ROIs",
      run: () => void (scope.rois.selected.value && scope.removeRoi(scope.rois.selected.value)),
    },
    {
      keys: ["Escape"],
      shown: "Esc",
      what: "Leave off drawing; deselect",
      group: "ROIs",
      run: () => {
        if (!stage.tools.busy) scope.rois.selected.value = null;
        stage.tools.choose("move");
      },
    },
    { keys: ["t"], shown: "t", what: "Take or give back control", group: "Scope", run: () => void toggleLease(scope) },
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
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || target.isContentEditable;
}

export function nextCamera(scope: ScopeView): void {
  const streams = scope.streams.value;
  const at = streams.findIndex((each) => each === scope.active.value);
  const next = streams[(at + 1) % Math.max(1, streams.length)];
  if (next) scope.activeName.value = next.name;
}

export function togglePause(scope: ScopeView): void {
  const live = scope.active.value?.when.value === "live";
  for (const stream of scope.streams.value) {
    if (live) stream.pause();
    else stream.live();
  }
}

/** Show a frame of the active stream, and of the others the nearest in time. */
export async function goTo(scope: ScopeView, where: Record<string, number>): Promise<void> {
  const active = scope.active.value;
  if (!active) return;
  for (const stream of scope.streams.value) stream.pause();
  await active.seek(where);
  const at = active.frame.value?.utcMs;
  if (at) for (const stream of scope.shown.value) if (stream !== active) void stream.seek({ utc_ms: at });
}

export function step(scope: ScopeView, by: number): void {
  const frame = scope.active.value?.frame.value;
  if (frame) void goTo(scope, { frame_id: Math.max(1, frame.frameId + by) });
}

export async function savePicture(scope: ScopeView, stage: Stage): Promise<void> {
  const stream = scope.active.value;
  if (!stream) return;
  const id = stream.frame.value?.frameId ?? 0;
  download(`${stream.name}-${id}.png`, await stage.picture());
}

export async function toggleLease(scope: ScopeView): Promise<void> {
  if (scope.mayControl.value) await scope.hold(!scope.lease.value?.yours);
}
