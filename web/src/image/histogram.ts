import type { Frame } from "../net/frame";
import type { Histogram } from "../net/messages";

const BINS = 256;
const MOST = 65536;
const PERCENTS = [0, 0.1, 0.35, 1, 2, 5, 50, 95, 98, 99, 99.65, 99.9, 100];

/** The histogram of what was sent of a frame: the server tells those of live frames only. Null where no value is finite. */
export function histogramOf(frame: Frame, stream: string): Histogram | null {
  const { data } = frame.plane;
  const step = Math.max(1, Math.ceil(data.length / MOST));
  const values = new Float64Array(Math.ceil(data.length / step));
  let count = 0;
  for (let at = 0; at < data.length; at += step) {
    const value = data[at]! * frame.scale + frame.offset;
    if (Number.isFinite(value)) values[count++] = value;
  }
  const sorted = values.subarray(0, count).sort();
  if (!count) return null;
  const at = (percent: number): number => sorted[Math.round((percent / 100) * (count - 1))]!;
  const low = sorted[0]!;
  const high = sorted[count - 1]!;
  const counts = new Array<number>(BINS).fill(0);
  for (const value of sorted) counts[high > low ? Math.min(BINS - 1, Math.floor((BINS * (value - low)) / (high - low))) : 0]!++;
  return {
    type: "histogram",
    stream,
    frame_id: frame.frameId,
    low,
    high,
    counts,
    pixels: count,
    step,
    not_finite: values.length - count,
    auto: [at(0.175), at(99.825)],
    percentiles: PERCENTS.map((percent) => [percent, at(percent)]),
  };
}
