import { useEffect, useRef, useState } from "preact/hooks";
import { lutOf } from "../image/luts";
import { indexOf } from "../image/rule";
import type { Contrast } from "../model/contrast";
import { short } from "./words";

const HEIGHT = 92;
const RAMP = 10;

/** What the axis spans: it grows at once, and shrinks only when the image has become much darker, so that handles stay where they are. */
function widen(before: [number, number] | null, low: number, high: number): [number, number] {
  const slack = Math.max((high - low) * 0.04, 1e-9);
  const wanted: [number, number] = [low - slack, high + slack];
  if (!before) return wanted;
  const roomy = before[0] <= low && before[1] >= high;
  return roomy && high - low > (before[1] - before[0]) * 0.5 ? before : wanted;
}

/** The histogram (of the whole frame while it is live, else of the part that is seen), with a handle at each end of the window: dragged by mouse, moved by arrow keys. */
export function HistogramView({ contrast, whole }: { contrast: Contrast; whole: boolean }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const span = useRef<[number, number] | null>(null);
  const [logarithmic, setLogarithmic] = useState(true);
  const histogram = contrast.histogram.value;
  const look = contrast.look.value;
  const { lo, hi, lut } = look;
  if (!contrast.held) span.current = widen(span.current, Math.min(lo, histogram?.low ?? lo), Math.max(hi, histogram?.high ?? hi));
  const [from, to] = span.current ?? [0, 1];

  useEffect(() => {
    const target = canvas.current;
    const context = target?.getContext("2d");
    if (!target || !context) return;
    const ratio = devicePixelRatio || 1;
    const width = Math.max(1, Math.round(target.clientWidth * ratio));
    const height = Math.round((HEIGHT + RAMP) * ratio);
    if (target.width !== width || target.height !== height) Object.assign(target, { width, height });
    context.clearRect(0, 0, width, height);
    const bars = HEIGHT * ratio;
    const place = (value: number): number => ((value - from) / (to - from)) * width;
    if (histogram) {
      const { counts, low, high } = histogram;
      const scaled = counts.map((each) => (logarithmic ? Math.log1p(each) : each));
      const top = Math.max(1e-9, ...scaled);
      context.fillStyle = "#5f7383";
      const each = (high - low || 1) / counts.length;
      scaled.forEach((value, bin) => {
        if (!value) return;
        const x = place(low + bin * each);
        const next = place(low + (bin + 1) * each);
        const tall = Math.max(ratio, (value / top) * (bars - 4 * ratio));
        context.fillRect(x, bars - tall, Math.max(ratio, next - x), tall);
      });
    }
    // What the window does: its curve over the bars, its colours below.
    const colours = lutOf(lut);
    context.beginPath();
    for (let x = 0; x <= width; x += ratio) {
      const value = from + (x / width) * (to - from);
      const index = indexOf(value, look);
      context.fillStyle = `rgb(${colours[index * 4]} ${colours[index * 4 + 1]} ${colours[index * 4 + 2]})`;
      context.fillRect(x, bars + 2 * ratio, ratio + 1, (RAMP - 2) * ratio);
      const y = bars - 2 * ratio - (index / 255) * (bars - 6 * ratio);
      if (x) context.lineTo(x, y);
      else context.moveTo(x, y);
    }
    context.strokeStyle = "rgb(214 222 230 / 0.75)";
    context.lineWidth = 1.25 * ratio;
    context.stroke();
  });

  const move = (end: "lo" | "hi", value: number): void => {
    const rounded = whole ? Math.round(value) : Number(value.toPrecision(6));
    const least = whole ? 1 : (to - from) / 1000;
    if (end === "lo") contrast.set(Math.min(rounded, hi - least), hi);
    else contrast.set(lo, Math.max(rounded, lo + least));
  };
  const handle = (end: "lo" | "hi") => {
    const value = end === "lo" ? lo : hi;
    const at = Math.min(100, Math.max(0, ((value - from) / (to - from)) * 100));
    return (
      <div
        class={`handle ${end}`}
        role="slider"
        tabIndex={0}
        aria-label={end === "lo" ? "Darkest value" : "Brightest value"}
        aria-valuenow={value}
        aria-valuemin={end === "lo" ? from : lo}
        aria-valuemax={end === "lo" ? hi : to}
        aria-valuetext={short(value)}
        style={{ left: `${at}%` }}
        onPointerDown={(event) => {
          event.preventDefault();
          event.currentTarget.focus();
          event.currentTarget.setPointerCapture(event.pointerId);
          contrast.held = true;
        }}
        onPointerMove={(event) => {
          if (!contrast.held || !event.currentTarget.hasPointerCapture(event.pointerId)) return;
          const area = box.current!.getBoundingClientRect();
          move(end, from + ((event.clientX - area.left) / area.width) * (to - from));
        }}
        onPointerUp={() => void (contrast.held = false)}
        onPointerCancel={() => void (contrast.held = false)}
        onKeyDown={(event) => {
          const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
          if (way === undefined) return;
          event.preventDefault();
          event.stopPropagation();
          const size = Math.max(whole ? 1 : 0, (to - from) / 200);
          move(end, value + way * (event.shiftKey ? 10 : 1) * size);
        }}
      />
    );
  };
  return (
    <div class="histogram">
      <div ref={box} class="bars">
        <canvas ref={canvas} role="img" aria-label="Histogram" style={{ height: `${HEIGHT + RAMP}px` }} />
        {handle("lo")}
        {handle("hi")}
      </div>
      <div class="histogram-foot">
        <span class="number">{short(histogram ? Math.min(lo, histogram.low) : from)}</span>
        <button type="button" class="plain small" aria-pressed={logarithmic} title="Scale of the counts" onClick={() => setLogarithmic(!logarithmic)}>
          {logarithmic ? "log" : "linear"}
        </button>
        <span class="number">{short(histogram ? Math.max(hi, histogram.high) : to)}</span>
      </div>
    </div>
  );
}
