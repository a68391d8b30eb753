import type { ScopeView } from "../model/scope";
import type { Plate, PlateImage, Well } from "../net/messages";
import { count } from "./words";

/** Letters of a row: A to Z, then AA, AB, … */
const rowName = (row: number): string => (row < 26 ? "" : rowName(Math.floor(row / 26) - 1)) + String.fromCharCode(65 + (row % 26));

const planes = (stored: number, missing: number): string =>
  missing ? `${count(missing)} of ${count(stored + missing)} planes missing` : `${count(stored)} planes, complete`;

const fieldName = ({ field, projection }: PlateImage): string => `${field}${projection ? " projected" : ""}`;

/** The wells as they lie on the plate, and the fields of the one that is seen. */
export function PlatePanel({ scope, plate }: { scope: ScopeView; plate: Plate }) {
  const chosen = plate.wells.find((well) => well.images.some(({ image }) => image === scope.field.value)) ?? null;
  const partial = plate.wells.filter((well) => well.missing).length;
  return (
    <>
      <section>
        <h2>
          {plate.name || "Plate"} <span class="quiet">{plate.rows * plate.columns} wells</span>
        </h2>
        <Wells plate={plate} chosen={chosen} onChoose={(well) => well.images[0] && scope.chooseField(well.images[0].image)} />
        <ul class="well-key">
          <li>
            <span class="well whole" aria-hidden="true" /> {count(plate.wells.length - partial)} complete
          </li>
          <li>
            <span class="well partial" aria-hidden="true" /> {count(partial)} with missing planes
          </li>
          <li>
            <span class="well" aria-hidden="true" /> {count(plate.rows * plate.columns - plate.wells.length)} not imaged
          </li>
        </ul>
      </section>
      {chosen ? (
        <section>
          <h2>
            {chosen.well} <span class="quiet">{planes(chosen.stored, chosen.missing)}</span>
          </h2>
          <div class="fields" role="group" aria-label={`Fields of ${chosen.well}`}>
            {chosen.images.map((each) => (
              <button key={each.image} type="button" class={each.missing ? "partial" : ""} aria-pressed={each.image === scope.field.value} title={planes(each.stored, each.missing)}
                onClick={() => scope.chooseField(each.image)}>
                {fieldName(each)}
                {each.missing ? <span class="visually-hidden">, {planes(each.stored, each.missing)}</span> : null}
              </button>
            ))}
          </div>
          <Facts image={chosen.images.find(({ image }) => image === scope.field.value) ?? null} />
        </section>
      ) : null}
    </>
  );
}

function Facts({ image }: { image: PlateImage | null }) {
  if (!image) return null;
  const [t, c, z] = image.extent;
  return (
    <dl class="facts">
      <dt>Field {fieldName(image)}</dt>
      <dd class={image.missing ? "bad" : ""}>{image.missing ? `${count(image.missing)} of ${count(image.stored + image.missing)} missing` : "complete"}</dd>
      <dt>Time points, channels, depths</dt>
      <dd>
        {t}, {c}, {z}
      </dd>
      {image.position_um ? (
        <>
          <dt>Place x, y</dt>
          <dd>
            {image.position_um[1].toFixed(1)}, {image.position_um[0].toFixed(1)} µm
          </dd>
        </>
      ) : null}
    </dl>
  );
}

/** One stop of the Tab key; the arrows go to the next well with images. */
function Wells({ plate, chosen, onChoose }: { plate: Plate; chosen: Well | null; onChoose(well: Well): void }) {
  const at = new Map(plate.wells.map((well) => [well.row * plate.columns + well.column, well]));
  const go = (event: KeyboardEvent): void => {
    const ways: Record<string, [number, number]> = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const way = ways[event.key];
    if (!way || !chosen) return;
    event.preventDefault();
    event.stopPropagation();
    let [row, column] = [chosen.row + way[0], chosen.column + way[1]];
    for (; row >= 0 && column >= 0 && row < plate.rows && column < plate.columns; row += way[0], column += way[1]) {
      const next = at.get(row * plate.columns + column);
      if (!next) continue;
      onChoose(next);
      document.getElementById(`well-${next.well}`)?.focus();
      return;
    }
  };
  // Names only where they can be read.
  const [everyRow, everyColumn] = [plate.rows > 16 ? 4 : 1, plate.columns > 24 ? 6 : plate.columns > 12 ? 2 : 1];
  return (
    <div class={`wells ${plate.columns > 12 ? "dense" : ""}`} role="group" aria-label="Wells" style={{ gridTemplateColumns: `auto repeat(${plate.columns}, minmax(0, 1fr))` }} onKeyDown={go}>
      <span />
      {Array.from({ length: plate.columns }, (_, column) => (
        <span key={column} class="well-name" aria-hidden="true">
          {column % everyColumn ? "" : column + 1}
        </span>
      ))}
      {Array.from({ length: plate.rows }, (_, row) => [
        <span key={`row ${row}`} class="well-name" aria-hidden="true">
          {row % everyRow ? "" : rowName(row)}
        </span>,
        ...Array.from({ length: plate.columns }, (_, column) => {
          const well = at.get(row * plate.columns + column);
          if (!well) return <span key={column} class="well" aria-hidden="true" />;
          const state = well.missing ? "partial" : "whole";
          return (
            <button key={column} id={`well-${well.well}`} type="button" class={`well ${state}`} aria-pressed={well === chosen} tabIndex={well === (chosen ?? plate.wells[0]) ? 0 : -1}
              aria-label={`${well.well}, ${planes(well.stored, well.missing)}`} title={`${well.well}: ${planes(well.stored, well.missing)}`} onClick={() => onChoose(well)} />
          );
        }),
      ])}
    </div>
  );
}
