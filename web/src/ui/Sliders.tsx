import { useEffect, useRef } from "preact/hooks";
import type { ScopeView } from "../model/scope";
import type { Axis, FrameIndex } from "../net/messages";
import { Icon } from "./icons";
import { playing, togglePlay } from "./keys";
import { count } from "./words";

/** A slider for each axis along which there is something to choose; planes that have not come are marked along it. */
export function Sliders({ scope }: { scope: ScopeView }) {
  const { layers } = scope;
  const stream = scope.active.value;
  const windows = scope.hello.value?.windows ?? [];
  const window = layers.window.value;
  const index = stream?.index.value ?? null;
  const missing = (index?.gaps ?? []).reduce((sum, [, length]) => sum + length, index?.gaps_more ?? 0);
  const single = (window?.axes ?? []).filter(({ values }) => values.length === 1);
  return (
    <div class="sliders" role="group" aria-label="Planes">
      {layers.axes.value.map((axis) => (
        <AxisRow key={axis.name} scope={scope} axis={axis} />
      ))}
      <div class="slider-foot">
        {windows.length > 1 ? (
          <select aria-label="Window" value={window?.name} onChange={(event) => layers.chooseWindow(event.currentTarget.value)}>
            {windows.map(({ name, title }) => (
              <option key={name} value={name}>
                {title}
              </option>
            ))}
          </select>
        ) : null}
        <span class="quiet">{single.map(({ title, values }) => `${title} ${values[0]}`).join(" · ")}</span>
        <span class={missing ? "warn" : "quiet"} role="status">
          {!index ? "" : missing ? `${count(missing)} of ${count(index.last_id)} planes have not come` : `${count(index.frames)} ${index.frames === 1 ? "plane" : "planes"}`}
        </span>
      </div>
    </div>
  );
}

function AxisRow({ scope, axis }: { scope: ScopeView; axis: Axis }) {
  const { layers } = scope;
  const marks = useRef<HTMLCanvasElement>(null);
  const stream = scope.active.value;
  const index = stream?.index.value ?? null;
  const at = layers.at.value;
  const number = axis.values.indexOf(at[axis.name] ?? "");
  const last = axis.values.length - 1;
  const current = layers.axis.value?.name === axis.name;
  const runs = current && playing.value;

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
    for (const place of missingAlong(axis, scope, index)) {
      context.fillRect(((place - 0.5) / last) * width, 0, Math.max(2 * ratio, width / last), height);
    }
  }, [index, axis, at]);

  const go = (to: number): void => {
    layers.use(axis.name);
    layers.choose(axis.name, axis.values[Math.min(last, Math.max(0, to))]!);
  };
  // Who looks by hand stops what is played.
  const byHand = (to: number): void => {
    playing.value = false;
    go(to);
  };
  const play = (): void => {
    if (!current) playing.value = false;
    layers.use(axis.name);
    void togglePlay(scope);
  };
  return (
    <div class={`axis ${current ? "current" : ""}`}>
      <button type="button" class="plain axis-name" aria-pressed={current} title={`The keys , and . and Space go along ${axis.title}`} onClick={() => layers.use(axis.name)}>
        {axis.title}
      </button>
      <button type="button" class="plain" aria-label={runs ? `Stop playing ${axis.title}` : `Play ${axis.title}`} title={`${runs ? "Stop" : "Play"} (Space)`} onClick={play}>
        <Icon name={runs ? "pause" : "play"} />
      </button>
      <div class="track">
        <canvas ref={marks} aria-hidden="true" />
        <input type="range" aria-label={axis.title} min={0} max={last} step={1} value={number} aria-valuetext={`${axis.title} ${at[axis.name] ?? ""}`}
          onFocus={() => layers.use(axis.name)} onInput={(event) => byHand(Number(event.currentTarget.value))} />
      </div>
      <span class="number axis-value">
        {at[axis.name]}
        <span class="quiet"> {number + 1}/{axis.values.length}</span>
      </span>
    </div>
  );
}

/** The indices along an axis whose plane the active stream lacks, all else being as it is seen. */
function missingAlong(axis: Axis, scope: ScopeView, index: FrameIndex | null): number[] {
  const own = scope.active.value?.about.value.axes ?? [];
  const along = own.indexOf(axis.name);
  const shape = index?.shape;
  if (!index || !shape || along < 0 || shape.length !== own.length || shape[along] !== axis.values.length) return [];
  const axes = scope.layers.window.value?.axes ?? [];
  let [before, stride, size] = [1, 1, 1];
  for (let number = own.length - 1; number >= 0; number--) {
    const values = axes.find(({ name }) => name === own[number])?.values ?? [];
    if (number === along) stride = size;
    else before += Math.max(0, values.indexOf(scope.layers.at.value[own[number]!] ?? "")) * size;
    size *= shape[number]!;
  }
  return axis.values.flatMap((_, place) => (isGap(index.gaps, before + place * stride) ? [place] : []));
}

/** Gaps ascend. */
function isGap(gaps: readonly (readonly [number, number])[], id: number): boolean {
  let [low, high] = [0, gaps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (gaps[middle]![0] <= id) low = middle + 1;
    else high = middle;
  }
  const gap = gaps[low - 1];
  return gap !== undefined && id < gap[0] + gap[1];
}
