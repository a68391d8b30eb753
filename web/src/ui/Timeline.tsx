import { useEffect, useRef } from "preact/hooks";
import type { ScopeView } from "../model/scope";
import { Icon } from "./icons";
import { goTo, playing, step, togglePause, togglePlay } from "./keys";
import { clock, count } from "./words";

const HISTORY = { recording: "recording", memory: "kept in memory", dataset: "data set", none: "no history" } as const;

/** Pause, and a slider over all frames there are; missing ids are marked. */
export function Timeline({ scope }: { scope: ScopeView }) {
  const marks = useRef<HTMLCanvasElement>(null);
  const stream = scope.active.value;
  const history = stream ? (scope.state.value?.streams[stream.name]?.history ?? null) : null;
  const kind = stream?.about.value.history ?? "none";
  const index = stream?.index.value ?? null;
  const frame = stream?.frame.value ?? null;
  const live = stream?.when.value === "live";
  const first = Math.max(1, history?.first_id ?? index?.first_id ?? 1);
  const last = Math.max(first, history?.last_id ?? index?.last_id ?? 1, live ? (frame?.frameId ?? 1) : 1);
  const at = frame?.frameId ?? last;
  const plate = scope.hello.value?.plate !== undefined;
  const [row, column, field] = scope.field.value.split("/");
  const seen = `${row}${column} · ${field}`;
  const where = plate && frame ? `t ${frame.index[0] + 1} · z ${frame.index[2] + 1}` : `frame ${count(frame?.frameId)}`;

  useEffect(() => {
    if (!stream) return undefined;
    const timer = window.setInterval(() => void stream.refreshIndex(), 5000);
    return () => window.clearInterval(timer);
  }, [stream]);

  useEffect(() => {
    const canvas = marks.current;
    const context = canvas?.getContext("2d");
    if (!canvas || !context) return;
    const ratio = devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.clearRect(0, 0, width, height);
    context.fillStyle = "#ff7a45";
    for (const [id, length] of index?.gaps ?? []) {
      // The slider's place of a frame is the middle of its mark.
      const x = ((id - 0.5 - first) / Math.max(1, last - first)) * width;
      context.fillRect(x, 0, Math.max(2 * ratio, (length / Math.max(1, last - first)) * width), height);
    }
  }, [index, first, last]);

  const missing = (index?.gaps ?? []).reduce((sum, [, length]) => sum + length, index?.gaps_more ?? 0);
  const off = kind === "none" || !stream || (scope.ended.value !== null && kind !== "dataset");
  // Who looks for a frame by hand stops what is played.
  const byHand = (go: () => Promise<void>): void => {
    playing.value = false;
    void go();
  };
  return (
    <div class="timeline" role="group" aria-label="Time">
      {kind === "dataset" || scope.ended.value ? null : (
        <button type="button" class={live ? "" : "primary"} aria-label={live ? "Pause" : "Go on live"} title={live ? "Pause (Space)" : "Live (Space)"} onClick={() => togglePause(scope)}>
          <Icon name={live ? "pause" : "live"} />
        </button>
      )}
      {live ? null : (
        <button type="button" aria-label={playing.value ? "Stop playing" : "Play"} title={`${playing.value ? "Stop" : "Play"} (${kind === "dataset" ? "Space" : "k"})`} disabled={off || first === last}
          onClick={() => void togglePlay(scope)}>
          <Icon name={playing.value ? "pause" : "play"} />
        </button>
      )}
      <button type="button" aria-label="One frame back" title="One frame back (,)" disabled={off} onClick={() => byHand(() => step(scope, -1))}>
        <Icon name="back" />
      </button>
      <button type="button" aria-label="One frame on" title="One frame on (.)" disabled={off} onClick={() => byHand(() => step(scope, 1))}>
        <Icon name="forward" />
      </button>
      <div class="track">
        <canvas ref={marks} aria-hidden="true" />
        <input type="range" aria-label="Frame" min={first} max={last} step={1} value={live ? last : at} disabled={off}
          aria-valuetext={`${where}${live ? ", live" : ""}`} onInput={(event) => byHand(() => goTo(scope, { frame_id: Number(event.currentTarget.value) }))} />
      </div>
      <span class={`when ${live && !scope.ended.value ? "live" : "past"}`} role="status">
        {scope.ended.value && !plate && kind !== "dataset" ? "ended" : live ? "live" : plate ? seen : kind === "dataset" ? "stored" : stream?.when.value === "paused" ? "paused" : "past"}
      </span>
      <span class="number frame-number" title={missing ? `${count(missing)} frames are missing` : HISTORY[kind]}>
        {where}
        <span class="quiet"> {frame?.utcMs ? clock(frame.utcMs, true) : ""}</span>
      </span>
    </div>
  );
}
