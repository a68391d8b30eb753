import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ScopeView } from "../model/scope";
import { ControlPanel } from "./ControlPanel";
import { useTick } from "./Fields";
import { Icon } from "./icons";
import { ImagePanel } from "./ImagePanel";
import { fits, isTyping, onStageKey, savePicture, shortcuts, type Shortcut, STAGE_KEYS, toggleLease } from "./keys";
import { LogPanel } from "./LogPanel";
import { PlatePanel } from "./PlatePanel";
import { PlotPanel } from "./PlotPanel";
import { RoiPanel } from "./RoiPanel";
import { ScopePanel } from "./ScopePanel";
import { Sliders } from "./Sliders";
import { type Stage, zoomText } from "./stage";
import { Timeline } from "./Timeline";
import { TOOLS } from "./tools";
import { count, duration, rate, shellWord } from "./words";

type Tab = "plate" | "image" | "scope" | "control" | "rois" | "plots" | "log";

const TABS: readonly (readonly [Tab, string])[] = [
  ["image", "Image"],
  ["scope", "Scope"],
  ["control", "Control"],
  ["rois", "ROIs"],
  ["plots", "Plots"],
  ["log", "Log"],
];

/** Of a stored data set there is nothing to control, and nothing happens in it. */
const STORED_TABS: typeof TABS = [
  ["image", "Image"],
  ["scope", "Data set"],
];

/** Which panel is open: nobody has chosen yet. */
const tab = signal<Tab | null>(null);

export function App({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  const help = useRef<HTMLDialogElement>(null);
  const keys = useMemo(() => shortcuts(scope, stage, () => help.current?.showModal()), [scope, stage]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
      // The space bar presses the button that has the focus.
      if (event.key === " " && event.target instanceof HTMLElement && event.target.closest("button, input:not([type=range]), summary, [role=tab]")) return;
      const shortcut = keys.find((each) => each.keys.includes(event.key) && fits(each, scope));
      if (!shortcut) return;
      event.preventDefault();
      shortcut.run(event);
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [keys]);
  return (
    <>
      <TopBar scope={scope} onHelp={() => help.current?.showModal()} />
      <main>
        <div class="left">
          <StageView scope={scope} stage={stage} />
          {scope.viewer.value ? <Sliders scope={scope} /> : <Timeline scope={scope} />}
          <StatusLine scope={scope} stage={stage} />
        </div>
        <SidePanel scope={scope} stage={stage} />
      </main>
      <Notices scope={scope} />
      <Help dialog={help} keys={keys.filter((each) => fits(each, scope))} stored={scope.stored.value} />
    </>
  );
}

function TopBar({ scope, onHelp }: { scope: ScopeView; onHelp(): void }) {
  const hello = scope.hello.value;
  const state = scope.state.value;
  const streams = Object.values(state?.streams ?? {});
  const stored = streams.reduce((sum, each) => sum + (each.stored ?? 0), 0);
  const missed = streams.reduce((sum, each) => sum + (each.missed ?? 0), 0);
  const dropped = streams.reduce((sum, each) => sum + Object.values(each.dropped ?? {}).reduce((a, b) => a + b, 0), 0);
  const fastest = streams.reduce((most, each) => Math.max(most, each.rate_hz ?? 0), 0);
  const rates = Object.entries(state?.streams ?? {}).map(([name, each]) => `${name}: ${rate(each.rate_hz)}`);
  const ill = (state?.workers ?? []).filter((each) => ["failed", "not responding", "needs consent", "restarting"].includes(each.state));
  const live = !scope.stored.value;
  const ended = scope.ended.value !== null;
  const acquiring = !ended && state?.scope?.acquiring;
  const saving = acquiring && hello?.record && state?.scope?.saving;
  return (
    <header class="topbar">
      <h1>
        <img src="icon.svg" alt="" width="22" height="22" />
        <span class="product">Mutoscope</span>
        <span class="scope-name" title={hello?.record?.path}>
          {hello?.scope ?? ""}
        </span>
      </h1>
      {live ? (
        <div class="vitals">
          {ended ? null : (
            <span class={`vital ${acquiring ? "good" : "off"}`} title={rates.join("\n")}>
              <span class="dot" aria-hidden="true" />
              <span class="word">{acquiring ? "acquiring" : "idle"} </span>
              <b class="number">{rate(fastest)}</b>
            </span>
          )}
          <span class={`vital ${saving ? "recording" : "off"}`}>
            <span class="dot square" aria-hidden="true" />
            <span class="word">{hello?.record ? (saving ? "recording" : acquiring ? "not recording" : "recorded") : "no recording"} </span>
            <b class="number">{count(stored)}</b>
          </span>
          <span class={`vital ${missed || dropped ? "bad" : "off"}`} title={`exposures missed: ${count(missed)}\nframes dropped: ${count(dropped)}`}>
            {missed || dropped ? <Icon name="warning" /> : null}
            <span class="word">{missed && !dropped ? "missed" : "dropped"} </span>
            <b class="number">{count(dropped || missed)}</b>
          </span>
          {ended ? null : (
            <span class={`vital ${ill.length ? "bad" : "off"}`} title={ill.map((each) => `${each.name}: ${each.state}`).join("\n")}>
            {ill.length ? <Icon name="warning" /> : null}
            workers{" "}
            <b class="number">
              {(state?.workers?.length ?? 0) - ill.length}/{state?.workers?.length ?? 0}
            </b>
            </span>
          )}
          {ended ? null : (
            <span class="vital off disk" title="How long until the disk is full">
              disk <b class="number">{state?.disk?.full_in_s != null ? duration(state.disk.full_in_s) : "–"}</b>
            </span>
          )}
        </div>
      ) : (
        <div class="vitals">
          <span class="vital off">{scope.viewer.value ? "viewer" : hello?.plate ? "stored plate" : "stored data set"}</span>
        </div>
      )}
      <LinkState scope={scope} />
      {live && !ended ? <LeaseButton scope={scope} /> : null}
      <button type="button" class="plain" aria-label="Keys" title="Keys (?)" onClick={onHelp}>
        <Icon name="help" />
      </button>
    </header>
  );
}

function LinkState({ scope }: { scope: ScopeView }) {
  const link = scope.link.link.value;
  const ended = scope.ended.value;
  const over = scope.viewer.value ? "the viewer was closed" : "the scope has ended";
  const text = ended
    ? over
    : { connecting: "connecting …", open: "connected", lost: "connection lost, trying again …", ended: over, refused: scope.link.why.value }[link];
  return (
    <span class={`link ${link}`} role="status">
      {text}
    </span>
  );
}

function LeaseButton({ scope }: { scope: ScopeView }) {
  useTick(1000);
  const lease = scope.lease.value;
  const left = Math.max(0, Math.round((scope.leaseEnds - performance.now()) / 1000));
  if (scope.hello.value?.role === "view") return <span class="lease-mark">view only</span>;
  const text = lease?.yours ? `in control · ${left} s` : lease?.holder ? `${lease.name || "somebody"} · ${left} s` : "take control";
  return (
    <button type="button" class={`lease-mark ${lease?.yours ? "yours" : ""}`} disabled={!scope.mayControl.value || scope.heldByOther.value} title="Take or give back control (t)" onClick={() => void toggleLease(scope)}>
      {text}
    </button>
  );
}

function StageView({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  const box = useRef<HTMLDivElement>(null);
  const image = useRef<HTMLCanvasElement>(null);
  const overlay = useRef<HTMLCanvasElement>(null);
  useEffect(() => (box.current && image.current && overlay.current ? stage.attach(box.current, image.current, overlay.current) : undefined), [stage]);
  const tool = stage.tools.tool.value;
  // Who only looks is not offered what draws.
  const tools = scope.stored.value ? [] : scope.hello.value?.role === "view" ? TOOLS.filter((each) => each.tool === "move") : TOOLS;
  const link = scope.link.link.value;
  const stale = link !== "open";
  return (
    <div class="stage-row">
      <div class="tools" role="toolbar" aria-label="Tools" aria-orientation="vertical">
        {tools.map(({ tool: each, title, key }) => (
          <button key={each} type="button" class="plain" aria-label={title} aria-pressed={tool === each} title={`${title} (${key})`} onClick={() => stage.tools.choose(each)}>
            <Icon name={each} />
          </button>
        ))}
        {scope.stored.value ? null : <hr />}
        <button type="button" class="plain" aria-label="Zoom in" title="Zoom in (+)" onClick={() => stage.zoom(true)}>
          <Icon name="plus" />
        </button>
        <button type="button" class="plain" aria-label="Zoom out" title="Zoom out (−)" onClick={() => stage.zoom(false)}>
          <Icon name="minus" />
        </button>
        <button type="button" class="plain" aria-label="Fit the image" title="Fit (f)" onClick={() => stage.fit()}>
          <Icon name="fit" />
        </button>
        <button type="button" class="plain text" aria-label="1:1, one pixel to one pixel" title="One pixel to one pixel (1)" onClick={() => stage.oneToOne()}>
          1:1
        </button>
        <hr />
        <button type="button" class="plain" aria-label="Save what is seen" title="Save what is seen as PNG (s)" onClick={() => void savePicture(scope, stage)}>
          <Icon name="camera" />
        </button>
      </div>
      <div ref={box} class={`stage ${stale ? "stale" : ""}`}>
        <canvas ref={image} class="image" aria-hidden="true" />
        <canvas
          ref={overlay}
          class={`overlay tool-${tool}`}
          role="application"
          aria-label="Live image. Arrow keys pan or move the selected ROI, plus and minus zoom."
          tabIndex={0}
          onKeyDown={(event) => {
            if (onStageKey(event, scope, stage)) event.preventDefault();
          }}
        />
        {stage.failure.value ? <p class="stage-note">{stage.failure.value}</p> : null}
        {!stage.failure.value && !scope.active.value?.frame.value ? <p class="stage-note">{noFrame(scope)}</p> : null}
      </div>
    </div>
  );
}

function noFrame(scope: ScopeView): string {
  if (scope.viewer.value) return scope.active.value ? "This plane has not come" : "Nothing has come yet";
  return scope.hello.value?.plate ? "This field has no plane of this channel" : "No frame yet";
}

function StatusLine({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  const stream = scope.active.value;
  const readout = stage.readout.value;
  const pixel = stream?.about.value.pixel_size_um ?? null;
  const image = stream?.image.value;
  return (
    <div class="statusline">
      <span class="readout number" aria-live="off">
        {readout ? (
          <>
            x {readout.x} y {readout.y} <b>{readout.text}</b>
          </>
        ) : (
          <span class="quiet">value under the cursor</span>
        )}
      </span>
      <span class="number">{stream ? zoomText(stream.view.value.zoom / (window.devicePixelRatio || 1)) : ""}</span>
      <span class="number quiet wide">
        {image ? `${image.width} × ${image.height} · ${stream?.about.value.dtype}` : ""}
        {pixel ? ` · ${Number(pixel.toPrecision(4))} µm/px` : ""}
      </span>
      <span class="number quiet" title="Frames drawn here a second; time from the camera to the screen (median)">
        {stage.shownHz.value ? `${stage.shownHz.value.toFixed(0)} shown/s` : ""}
        {stage.latencyMs.value !== null ? ` · ${stage.latencyMs.value.toFixed(0)} ms` : ""}
      </span>
    </div>
  );
}

function SidePanel({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  const plate = scope.hello.value?.plate;
  const plots = scope.tables.value.length ? ([["plots", "Plots"]] as const) : [];
  const tabs: typeof TABS = scope.viewer.value ? STORED_TABS.slice(0, 1) : scope.stored.value ? [...(plate ? ([["plate", "Plate"]] as const) : []), ...STORED_TABS, ...plots] : TABS;
  const chosen = tabs.find(([name]) => name === tab.value)?.[0] ?? tabs[0]![0];
  const panels: Record<Tab, () => ComponentChildren> = {
    plate: () => (plate ? <PlatePanel scope={scope} plate={plate} /> : null),
    image: () => <ImagePanel scope={scope} stage={stage} />,
    scope: () => <ScopePanel scope={scope} />,
    control: () => <ControlPanel scope={scope} />,
    rois: () => <RoiPanel scope={scope} stage={stage} />,
    plots: () => <PlotPanel scope={scope} />,
    log: () => <LogPanel scope={scope} />,
  };
  const go = (event: KeyboardEvent): void => {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const at = tabs.findIndex(([name]) => name === chosen);
    const next = tabs[(at + way + tabs.length) % tabs.length]![0];
    tab.value = next;
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <aside class="side" aria-label="Panels">
      <div class="tabs" role="tablist" aria-label="Panels" onKeyDown={go}>
        {tabs.map(([name, title]) => (
          <button key={name} type="button" role="tab" id={`tab-${name}`} aria-selected={chosen === name} aria-controls="panel" tabIndex={chosen === name ? 0 : -1} onClick={() => void (tab.value = name)}>
            {title}
          </button>
        ))}
      </div>
      <div key={chosen} class="panel" id="panel" role="tabpanel" aria-labelledby={`tab-${chosen}`} tabIndex={0}>
        <div class="flow">{panels[chosen]()}</div>
      </div>
    </aside>
  );
}

/** What stays to be said when the run is over: where its data are, and how they are looked at. */
function Ended({ scope }: { scope: ScopeView }) {
  const [closed, close] = useState(false);
  const ended = scope.ended.value;
  const record = scope.hello.value?.record;
  if (!ended || closed || scope.stored.value) return null;
  return (
    <div class={`notice ended ${ended.errors.length ? "bad" : ""}`}>
      <div>
        <p>
          The run has ended{ended.reason && ended.reason !== "stopped" ? `: ${ended.reason}` : ""}. {ended.message}
        </p>
        {ended.errors.map((each) => (
          <p key={each} class="bad">
            {each}
          </p>
        ))}
        {record ? (
          <p>
            To look through it: <code>mutoscope view browser {shellWord(record.path)}</code>
          </p>
        ) : null}
      </div>
      <button type="button" class="plain" aria-label="Close this message" onClick={() => close(true)}>
        <Icon name="remove" />
      </button>
    </div>
  );
}

function Notices({ scope }: { scope: ScopeView }) {
  const notice = scope.notice.value;
  useEffect(() => {
    if (!notice) return undefined;
    const timer = window.setTimeout(() => void (scope.notice.value = null), notice.kind === "bad" ? 12_000 : 4000);
    return () => window.clearTimeout(timer);
  }, [notice]);
  return (
    <div class="notices" role="status" aria-live="polite">
      <Ended scope={scope} />
      {notice ? (
        <div class={`notice ${notice.kind}`}>
          {notice.detail ? (
            <details>
              <summary>{notice.text}</summary>
              <pre tabIndex={0}>{notice.detail}</pre>
            </details>
          ) : (
            <span>{notice.text}</span>
          )}
          <button type="button" class="plain" aria-label="Close this message" onClick={() => void (scope.notice.value = null)}>
            <Icon name="remove" />
          </button>
        </div>
      ) : null}
    </div>
  );
}

function Help({ dialog, keys, stored }: { dialog: { current: HTMLDialogElement | null }; keys: Shortcut[]; stored: boolean }) {
  const groups = (["Images", "Time", "ROIs", "Scope"] as const).filter((group) => keys.some((each) => each.group === group));
  return (
    <dialog ref={dialog} class="help" aria-labelledby="help-title">
      <h2 id="help-title">Keys</h2>
      <div class="help-groups">
        {groups.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <KeyList keys={keys.filter((each) => each.group === group)} />
          </section>
        ))}
        <section>
          <h3>With the image in focus</h3>
          <KeyList keys={stored ? [{ shown: "← ↑ → ↓", what: "Pan (Shift: far)" }] : STAGE_KEYS} />
          <p class="quiet">The wheel zooms where the cursor is; dragging pans.</p>
        </section>
      </div>
      <div class="row">
        <button type="button" onClick={() => dialog.current?.close()} autofocus>
          Close
        </button>
      </div>
    </dialog>
  );
}

function KeyList({ keys }: { keys: readonly { shown: string; what: string }[] }) {
  return (
    <dl>
      {keys.map(({ shown, what }) => (
        <div key={what}>
          <dt>
            <kbd>{shown}</kbd>
          </dt>
          <dd>{what}</dd>
        </div>
      ))}
    </dl>
  );
}
