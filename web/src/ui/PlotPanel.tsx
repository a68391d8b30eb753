import { useEffect } from "preact/hooks";
import { signal } from "@preact/signals";
import uPlot from "uplot";
import { SERIES } from "../image/overlay";
import type { ScopeView } from "../model/scope";
import type { TableView } from "../model/tables";
import { download, csv } from "./export";
import { Choice } from "./Fields";
import { axis, clockTicks, Plot } from "./Plot";
import { count } from "./words";

interface PlotChoice {
  number: number;
  table: string;
  y: string;
  /** A column, `""` for time, or `"#"` for a histogram of `y`. */
  x: string;
}

const TIME = "";
const HISTOGRAM = "#";
const ROWS = 5000;
const BINS = 64;
let next = 1;
const plots = signal<readonly PlotChoice[]>([]);

export function PlotPanel({ scope }: { scope: ScopeView }) {
  const tables = scope.tables.value.filter((table) => table.numeric.length);
  const add = (): void => {
    const table = tables[0];
    if (!table) return;
    const y = table.numeric.find((name) => !/(^|_)(id|ns)$/.test(name)) ?? table.numeric[0]!;
    plots.value = [...plots.value, { number: next++, table: table.about.name, y, x: TIME }];
  };
  return (
    <>
      <section>
        <h2>Plots</h2>
        {tables.length ? null : <p class="quiet doc">A worker that writes a table gives something to plot.</p>}
        <div class="row">
          <button type="button" disabled={!tables.length} onClick={add}>
            Add a plot
          </button>
        </div>
      </section>
      {plots.value.map((choice) => {
        const table = scope.table(choice.table);
        return table ? <TablePlot key={choice.number} scope={scope} choice={choice} table={table} /> : null;
      })}
    </>
  );
}

function TablePlot({ scope, choice, table }: { scope: ScopeView; choice: PlotChoice; table: TableView }) {
  const { number, y, x } = choice;
  useEffect(() => {
    table.use(`plot ${number}`, { rows: ROWS, hz: 5 });
    return () => table.use(`plot ${number}`, null);
  }, [number, table]);
  const change = (part: Partial<PlotChoice>): void => {
    plots.value = plots.value.map((each) => (each === choice ? { ...each, ...part } : each));
  };
  const revision = table.revision.value;
  const drawn = dataOf(table, choice);
  const title = x === HISTOGRAM ? `Histogram of ${y}` : `${y} against ${x === TIME ? "time" : x}`;
  const tables = scope.tables.value.filter((each) => each.numeric.length);
  return (
    <section class="plot-section" aria-label={title}>
      <div class="plot-choices">
        <Choice label="Table" value={choice.table} options={tables.map(({ about }) => [about.name, about.name] as const)}
          onChange={(name) => {
            const other = scope.table(name);
            if (other) change({ table: name, y: other.numeric.at(-1) ?? "", x: TIME });
          }} />
        <Choice label="Plot" value={y} options={table.numeric.map((name) => [name, name] as const)} onChange={(name) => change({ y: name })} />
        <Choice label="against" value={x} options={[[TIME, "time"] as const, [HISTOGRAM, "how often (histogram)"] as const, ...table.numeric.map((name) => [name, name] as const)]}
          onChange={(name) => change({ x: name })} />
      </div>
      <Plot label={`${title}, ${count(drawn.rows)} rows`} height={170} identity={`${choice.table} ${y} ${x}`} revision={revision} options={optionsOf(choice)} data={drawn.data} />
      <div class="row">
        <button type="button" onClick={() => download(`${choice.table}.csv`, csv(table.columns))}>
          Save CSV
        </button>
        <button type="button" onClick={() => void (plots.value = plots.value.filter((each) => each !== choice))}>
          Remove
        </button>
        <span class="quiet number">
          {count(drawn.rows)} rows{table.lost ? `, ${count(table.lost)} passed over` : ""}
        </span>
        <span class="quiet">{storedWords(scope.state.value?.tables?.[choice.table])}</span>
      </div>
    </section>
  );
}

/** What the recorder has made of a table, where there is one. */
function storedWords(account: { stored?: number; lost?: Record<string, number> } | undefined): string {
  if (account?.stored === undefined) return "";
  const lost = Object.entries(account.lost ?? {}).map(([reason, rows]) => `${count(rows)} not stored (${reason.replaceAll("_", " ")})`);
  return [`${count(account.stored)} stored`, ...lost].join(", ");
}

/** Times of rows in seconds since 1970: of a column if there is one, else by when they arrived here. */
function timesOf(table: TableView): number[] {
  const utc = table.columns.get("utc_ns");
  return utc ? utc.map((each) => each / 1e9) : table.made;
}

function dataOf(table: TableView, { y, x }: PlotChoice): { data: uPlot.AlignedData; rows: number } {
  const values = table.columns.get(y) ?? [];
  if (x === HISTOGRAM) {
    const finite = values.filter(Number.isFinite);
    const low = finite.reduce((least, each) => Math.min(least, each), Infinity);
    const high = finite.reduce((most, each) => Math.max(most, each), -Infinity);
    if (!finite.length) return { data: [[], []], rows: 0 };
    const width = (high - low || 1) / BINS;
    const counts = new Array<number>(BINS).fill(0);
    for (const each of finite) counts[Math.min(BINS - 1, Math.floor((each - low) / width))]!++;
    return { data: [counts.map((_, bin) => low + (bin + 0.5) * width), counts], rows: finite.length };
  }
  const places = x === TIME ? timesOf(table) : (table.columns.get(x) ?? []);
  const rows = Math.min(values.length, places.length);
  const order: number[] = [];
  for (let row = 0; row < rows; row++) if (Number.isFinite(places[row]!)) order.push(row);
  // uPlot wants the first list in order.
  if (x !== TIME) order.sort((a, b) => places[a]! - places[b]!);
  const ys = order.map((row) => (Number.isFinite(values[row]!) ? values[row]! : null));
  return { data: [order.map((row) => places[row]!), ys], rows };
}

function optionsOf({ y, x }: PlotChoice): Omit<uPlot.Options, "width" | "height"> {
  const bars = x === HISTOGRAM;
  const free = !bars && x !== TIME;
  return {
    legend: { show: false },
    cursor: { points: { size: 6 }, drag: { x: true, y: false } },
    padding: [8, 24, 0, 0],
    scales: { x: { time: x === TIME } },
    axes: [axis({ size: 24, space: 70, ...(x === TIME ? { values: clockTicks } : {}) }), axis({ size: 54, space: 30 })],
    series: [
      {},
      {
        label: y,
        stroke: SERIES[0]!,
        width: free ? 0 : 1.5,
        points: { show: free, size: 4, fill: SERIES[0]! },
        ...(bars ? { paths: uPlot.paths.bars!({ size: [1, 40] }), fill: "rgb(86 180 233 / 0.5)" } : {}),
      },
    ],
  };
}
