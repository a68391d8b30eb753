import { useId } from "preact/hooks";
import { LUT_NAMES } from "../image/luts";
import { PERCENTILES } from "../model/contrast";
import type { ScopeView } from "../model/scope";
import type { StreamView } from "../model/stream";
import type { TableView } from "../model/tables";
import { Choice, NumberBox, Switch } from "./Fields";
import { HistogramView } from "./HistogramView";
import { Icon } from "./icons";
import type { OverlayChoice, Stage } from "./stage";

export function ImagePanel({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  const active = scope.active.value;
  if (!active) return <p class="quiet">{scope.viewer.value ? "Nothing has come yet." : "Waiting for the first camera …"}</p>;
  const rois = scope.viewer.value || !scope.stored.value;
  return (
    <>
      {scope.listed.value.length > 1 ? <Cameras scope={scope} stage={stage} /> : null}
      <ContrastSection key={active.name} stream={active} many={scope.listed.value.length > 1} />
      <section>
        <h2>Over the image</h2>
        <Switch label="Scale bar" on={stage.showScaleBar.value} onChange={(on) => void (stage.showScaleBar.value = on)} />
        {!rois ? null : <Switch label="ROIs" on={stage.showRois.value} onChange={(on) => void (stage.showRois.value = on)} />}
        {scope.stored.value && !scope.tables.value.length ? null : <Overlays scope={scope} stage={stage} />}
      </section>
    </>
  );
}

function Cameras({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  return (
    <section>
      <h2>{scope.viewer.value ? "Layers" : scope.hello.value?.plate ? "Channels" : "Cameras"}</h2>
      <div class="segments" role="group" aria-label={scope.viewer.value ? "Layout of the layers" : "Layout of the cameras"}>
        <button type="button" aria-pressed={stage.layout.value === "side"} onClick={() => stage.setLayout("side")}>
          <Icon name="side" /> Side by side
        </button>
        <button type="button" aria-pressed={stage.layout.value === "over"} onClick={() => stage.setLayout("over")}>
          <Icon name="over" /> Over each other
        </button>
      </div>
      {stage.layout.value === "side" && stage.linkable ? (
        <Switch label="Pan and zoom together" on={stage.linked.value} onChange={(on) => void (stage.linked.value = on)} />
      ) : null}
      <ul class="cameras">
        {scope.listed.value.map((stream) => (
          <li key={stream.name} class={stream === scope.active.value ? "selected" : ""}>
            <input type="checkbox" aria-label={`Show ${stream.title}`} checked={stream.visible.value} onChange={(event) => stream.show(event.currentTarget.checked)} />
            <button type="button" class="plain" aria-pressed={stream === scope.active.value} onClick={() => void (scope.activeName.value = stream.name)}>
              {stream.title}
            </button>
            <span class="quiet">
              {stream.about.value.shape[1]} × {stream.about.value.shape[0]} · {stream.about.value.dtype}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function ContrastSection({ stream, many }: { stream: StreamView; many: boolean }) {
  const { contrast } = stream;
  const look = contrast.look.value;
  const sent = contrast.sent.value;
  const gamma = useId();
  const whole = !stream.about.value.dtype.startsWith("float") && !stream.about.value.dtype.startsWith("complex");
  const pair = `${look.low} ${look.high}`;
  if (stream.about.value.colours === 3) return null;
  return (
    <section>
      <h2>
        Contrast {many ? <span class="quiet">{stream.title}</span> : null}
      </h2>
      <HistogramView contrast={contrast} whole={whole} />
      <div class="segments" role="group" aria-label="How contrast is set">
        <button type="button" aria-pressed={look.mode === "auto"} title="Follow the image, 0.35 % saturated (a)" onClick={() => contrast.follow("auto")}>
          Auto
        </button>
        <button type="button" aria-pressed={look.mode === "percentile"} title="Follow percentiles of the image" onClick={() => contrast.follow("percentile")}>
          Percentile
        </button>
        <button type="button" aria-pressed={look.mode === "hand"} title="Hold these limits" onClick={() => contrast.change({ mode: "hand" })}>
          Hold
        </button>
        {sent ? (
          <button type="button" aria-pressed={look.mode === "sent"} title="The limits that came with the images" onClick={() => contrast.follow("sent")}>
            As sent
          </button>
        ) : null}
      </div>
      <div class="pair">
        <NumberBox label="Darkest" value={look.lo} onCommit={(value) => value !== null && contrast.set(value, look.hi)} />
        <NumberBox label="Brightest" value={look.hi} onCommit={(value) => value !== null && contrast.set(look.lo, value)} />
      </div>
      <Choice label="Percentiles" value={pair} options={PERCENTILES.map(([low, high]) => [`${low} ${high}`, low === 0 ? "least to greatest" : `${low} – ${high} %`] as const)}
        onChange={(value) => {
          const [low, high] = value.split(" ").map(Number);
          contrast.follow("percentile", low, high);
        }} />
      <Choice label="Colours" value={look.lut} options={LUT_NAMES.map((name) => [name, name] as const)} onChange={(lut) => contrast.change({ lut })} />
      <div class="field">
        <label for={gamma}>Gamma</label>
        <span class="slider">
          <input id={gamma} type="range" min={-1} max={1} step={0.05} value={Math.log2(look.gamma) / 2} aria-valuetext={look.gamma.toFixed(2)}
            onInput={(event) => contrast.change({ gamma: Number((4 ** Number(event.currentTarget.value)).toFixed(3)) })} />
          <span class="number">{look.gamma.toFixed(2)}</span>
        </span>
      </div>
    </section>
  );
}

function Overlays({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  const tables = scope.tables.value.filter((table) => table.about.overlay);
  if (!tables.length) return <p class="quiet doc">Tables with columns for y and x can be drawn here.</p>;
  const gone = (table: TableView): boolean => {
    void table.revision.value;
    const stream = scope.stream(scope.streamOf(table.about) ?? "") ?? scope.active.value;
    const frame = stream?.frame.value;
    return !!frame && stream.when.value !== "live" && table.beginsAfter(frame.frameId, stream.name);
  };
  return (
    <>
      {tables.map((table) => {
        const { name, overlay } = table.about;
        const choice = stage.choice(table);
        const change = (part: Partial<OverlayChoice>): void => stage.overlay(table, part);
        return (
          <div key={name} class="overlay-choice">
            <Switch label={name} on={choice.on} onChange={(on) => change({ on })} />
            {choice.on && gone(table) ? <p class="quiet doc">{table.about.stored ? "Its rows begin after this frame." : "Its rows begin after this frame: a table keeps the newest ones."}</p> : null}
            {overlay?.id && choice.on ? (
              <div class="indent">
                <Switch label="ids" on={choice.ids} onChange={(ids) => change({ ids })} />
                <Switch label="tails" on={choice.tails} onChange={(tails) => change({ tails })} />
                <NumberBox label="tail length" unit="frames" whole minimum={1} maximum={2000} value={choice.frames} onCommit={(frames) => frames && change({ frames })} />
              </div>
            ) : null}
          </div>
        );
      })}
    </>
  );
}
