import { keyOfRoi, measure, TITLES } from "../model/rois";
import type { ScopeView } from "../model/scope";
import type { PlacedRoi } from "../net/messages";
import { Icon } from "./icons";
import type { Stage } from "./stage";
import { Switch } from "./Fields";

export function RoiPanel({ scope, stage }: { scope: ScopeView; stage: Stage }) {
  const rois = [...scope.rois.all.value.values()];
  const off = !scope.mayControl.value || scope.heldByOther.value;
  const active = scope.active.value;
  return (
    <>
      <section>
        <h2>Regions of interest</h2>
        <p class="quiet doc">Draw with the tools at the left of the image (r, e, g, h, l, p). Drag a shape to move it, its squares to change it.</p>
        <Switch label="Show on the image" on={stage.showRois.value} onChange={(on) => void (stage.showRois.value = on)} />
        <div class="row">
          <button type="button" disabled={off || !active} onClick={() => active && stage.tools.addInMiddle(active)}>
            Add in the middle
          </button>
        </div>
      </section>
      <section>
        <h2>
          {rois.length} {rois.length === 1 ? "ROI" : "ROIs"}
        </h2>
        <ul class="rois">
          {rois.map((placed) => (
            <RoiRow key={keyOfRoi(placed)} scope={scope} placed={placed} off={off} />
          ))}
        </ul>
      </section>
    </>
  );
}

function RoiRow({ scope, placed, off }: { scope: ScopeView; placed: PlacedRoi; off: boolean }) {
  const { roi, stream } = placed;
  const selected = scope.rois.selected.value === keyOfRoi(placed);
  const pixelSize = scope.stream(stream)?.about.value.pixel_size_um ?? null;
  const size = measure(roi.geometry);
  const unit = pixelSize ?? 1;
  const text = !size
    ? ""
    : "area" in size
      ? `${Number((size.area * unit * unit).toPrecision(4))} ${pixelSize ? "µm²" : "px²"}`
      : `${Number((size.length * unit).toPrecision(4))} ${pixelSize ? "µm" : "px"}`;
  return (
    <li class={selected ? "selected" : ""}>
      <button type="button" class="plain" aria-pressed={selected} title={`${TITLES[roi.geometry.type] ?? roi.geometry.type} on ${stream}`}
        onClick={() => void (scope.rois.selected.value = selected ? null : keyOfRoi(placed))}>
        <Icon name={roi.geometry.type === "points" ? "point" : roi.geometry.type} />
        <span class="visually-hidden">Select {roi.name || roi.id}</span>
      </button>
      <input type="text" aria-label={`Name of ROI ${roi.id}`} value={roi.name ?? ""} placeholder={roi.id} disabled={off}
        onChange={(event) => void scope.putRoi({ ...placed, roi: { ...roi, name: event.currentTarget.value } })} />
      <span class="number">{text}</span>
      <button type="button" class="plain" disabled={off} aria-label={`Remove ROI ${roi.name || roi.id}`} title="Remove" onClick={() => void scope.removeRoi(placed)}>
        <Icon name="remove" />
      </button>
    </li>
  );
}
