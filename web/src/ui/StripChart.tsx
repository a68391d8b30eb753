import type uPlot from "uplot";
import type { ScopeView } from "../model/scope";
import { axis, clockTicks, Plot } from "./Plot";
import { clock, count } from "./words";

const LOSS = "#ff7a45";
/** What is shown: as much as there is, within these. */
const SPAN_S = [60, 300] as const;

/** Each half second in which exposures were missed or frames dropped is a bar from top to bottom with a triangle on it: no loss is too small to see. */
function lossMarks(): uPlot.Plugin {
  return {
    hooks: {
      draw: (plot) => {
        const losses = plot.data[3];
        if (!losses) return;
        const { ctx, bbox } = plot;
        const size = 5 * devicePixelRatio;
        ctx.save();
        ctx.fillStyle = LOSS;
        losses.forEach((lost, index) => {
          if (!lost) return;
          const x = plot.valToPos(plot.data[0][index]!, "x", true);
          if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) return;
          ctx.globalAlpha = 0.55;
          ctx.fillRect(x - devicePixelRatio, bbox.top, 2 * devicePixelRatio, bbox.height);
          ctx.globalAlpha = 1;
          ctx.beginPath();
          ctx.moveTo(x - size, bbox.top);
          ctx.lineTo(x + size, bbox.top);
          ctx.lineTo(x, bbox.top + size * 1.5);
          ctx.fill();
        });
        ctx.restore();
      },
    },
  };
}

export function StripChart({ scope, stream }: { scope: ScopeView; stream: string }) {
  const state = scope.state.value;
  const strip = scope.strips.of.get(stream);
  const now = (state?.utc_ms ?? 0) / 1000;
  const lost = strip ? strip.lost.reduce<number>((sum, each) => sum + (each ?? 0), 0) : 0;
  const first = strip?.utc[0] ?? now;
  // What was before this page was opened is counted below, not drawn here.
  const period = now - first < SPAN_S[1] - 1 ? `since ${clock(first * 1000)}` : "in 5 min";
  const options: Omit<uPlot.Options, "width" | "height"> = {
    legend: { show: false },
    cursor: { show: false },
    padding: [6, 20, 0, 0],
    scales: {
      x: {
        time: true,
        range: (plot) => {
          const last = (scope.state.peek()?.utc_ms ?? 0) / 1000;
          const first = Number(plot.data[0][0] ?? last);
          return [last - Math.min(SPAN_S[1], Math.max(SPAN_S[0], last - first)), last];
        },
      },
      y: { range: (_plot, _low, high) => [0, Math.max(1, (high || 0) * 1.15)] },
    },
    axes: [axis({ size: 22, space: 70, values: clockTicks }), axis({ size: 40, space: 28 })],
    series: [
      {},
      { label: "produced", stroke: "#56b4e9", width: 1.5, points: { show: false } },
      { label: "stored", stroke: "#0fb584", width: 1.5, dash: [5, 3], points: { show: false } },
      { label: "lost", show: false },
    ],
    plugins: [lossMarks()],
  };
  const data = (strip ? [strip.utc, strip.produced, strip.stored, strip.lost] : [[], [], [], []]) as uPlot.AlignedData;
  return (
    <figure class="strip">
      <Plot label={`Frames a second of ${stream}; ${count(lost)} missed or dropped ${period}`} height={104} identity={stream} revision={now} options={options} data={data} />
      <figcaption>
        <span class="key produced">produced</span>
        <span class="key stored">stored</span>
        <span class="key lost">{`${lost ? count(lost) : "none"} missed or dropped ${period}`}</span>
      </figcaption>
    </figure>
  );
}
