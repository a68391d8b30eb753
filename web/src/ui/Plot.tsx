import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

/** A chart that follows the width of its place. It is made anew when `identity` or `height` changes; `data` is taken up when `revision` does. */
export function Plot(props: { label: string; height: number; identity: string; revision: number; options: Omit<uPlot.Options, "width" | "height">; data: uPlot.AlignedData }) {
  const { label, height, identity, revision, options, data } = props;
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  useEffect(() => {
    const place = box.current;
    if (!place) return undefined;
    const made = new uPlot({ ...options, width: Math.max(50, place.clientWidth), height }, data, place);
    chart.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(50, place.clientWidth), height }));
    observer.observe(place);
    return () => {
      observer.disconnect();
      made.destroy();
      chart.current = null;
    };
  }, [identity, height]);
  useEffect(() => {
    chart.current?.setData(data);
  }, [revision]);
  return <div ref={box} class="plot" role="img" aria-label={label} style={{ height: `${height}px` }} />;
}

const GRID = { stroke: "rgb(255 255 255 / 0.06)", width: 1 };
const FONT = "11px system-ui, sans-serif";

const pad = (value: number): string => String(value).padStart(2, "0");

/** Times of day on a time axis: hours and minutes, with seconds where the ticks are close. */
export function clockTicks(_plot: uPlot, ticks: number[]): string[] {
  const close = ticks.length > 1 && ticks[1]! - ticks[0]! < 60;
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    return `${pad(at.getHours())}:${pad(at.getMinutes())}${close ? `:${pad(at.getSeconds())}` : ""}`;
  });
}

export function axis(extra: Partial<uPlot.Axis> = {}): uPlot.Axis {
  return { stroke: "#9aa6b0", font: FONT, grid: GRID, ticks: { show: false }, ...extra };
}
