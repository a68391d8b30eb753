import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Field, Setting } from "../net/messages";

interface NumberBoxProps {
  label: string;
  value: number | null;
  unit?: string;
  minimum?: number | null;
  maximum?: number | null;
  step?: number | null;
  whole?: boolean;
  optional?: boolean;
  disabled?: boolean;
  title?: string;
  onCommit(value: number | null): void;
}

/** A number that is told when Enter is pressed or the field is left; Escape takes back what was typed. */
export function NumberBox(props: NumberBoxProps) {
  const { label, value, unit, minimum, maximum, step, whole, optional, disabled, title, onCommit } = props;
  const id = useId();
  const shown = value === null ? "" : String(value);
  const [text, setText] = useState<string | null>(null);
  const commit = (): void => {
    if (text === null) return;
    setText(null);
    if (text.trim() === "" && optional) {
      if (value !== null) onCommit(null);
      return;
    }
    const number = Number(text);
    if (text.trim() !== "" && Number.isFinite(number) && number !== value) onCommit(whole ? Math.round(number) : number);
  };
  return (
    <div class="field" title={title}>
      <label for={id}>{label}</label>
      <span class="with-unit">
        <input
          id={id}
          type="number"
          inputMode="decimal"
          value={text ?? shown}
          min={minimum ?? undefined}
          max={maximum ?? undefined}
          step={step ?? (whole ? 1 : "any")}
          disabled={disabled}
          onInput={(event) => setText(event.currentTarget.value)}
          onChange={commit}
          onKeyDown={(event) => {
            if (event.key === "Enter") commit();
            if (event.key === "Escape") setText(null);
          }}
        />
        {unit ? <span class="unit">{unit}</span> : null}
      </span>
    </div>
  );
}

export function Switch({ label, on, disabled, onChange }: { label: string; on: boolean; disabled?: boolean; onChange(on: boolean): void }) {
  const id = useId();
  return (
    <div class="field switch">
      <label for={id}>{label}</label>
      <input id={id} type="checkbox" role="switch" checked={on} disabled={disabled} onChange={(event) => onChange(event.currentTarget.checked)} />
    </div>
  );
}

export function Choice<T extends string>(props: { label: string; value: T; options: readonly (readonly [T, string])[]; disabled?: boolean; title?: string; onChange(value: T): void }) {
  const id = useId();
  const byPointer = useRef(false);
  return (
    <div class="field" title={props.title}>
      <label for={id}>{props.label}</label>
      <select
        id={id}
        value={props.value}
        disabled={props.disabled}
        onPointerDown={() => void (byPointer.current = true)}
        onKeyDown={() => void (byPointer.current = false)}
        onChange={(event) => {
          // Who chose with the mouse goes on with the keys of the page: here they would choose another option.
          if (byPointer.current) event.currentTarget.blur();
          byPointer.current = false;
          props.onChange(event.currentTarget.value as T);
        }}
      >
        {props.options.map(([value, title]) => (
          <option key={value} value={value}>
            {title}
          </option>
        ))}
      </select>
    </div>
  );
}

function TextBox({ label, value, title, disabled, onCommit }: { label: string; value: string; title?: string; disabled?: boolean; onCommit(value: string): void }) {
  const id = useId();
  const [text, setText] = useState<string | null>(null);
  return (
    <div class="field" title={title}>
      <label for={id}>{label}</label>
      <input
        id={id}
        type="text"
        value={text ?? value}
        disabled={disabled}
        onInput={(event) => setText(event.currentTarget.value)}
        onChange={() => {
          if (text !== null && text !== value) onCommit(text);
          setText(null);
        }}
      />
    </div>
  );
}

const spaced = (name: string): string => name.replace(/_/g, " ");

const PHYSICAL = new Set(["px", "ns", "us", "µs", "ms", "s", "Hz", "kHz", "um", "µm", "nm", "mm", "V", "mV", "mW", "mT", "pN", "deg", "%"]);

/** `exposure_ms` with unit `ms` reads "exposure". */
export function labelOf(name: string, unit: string): string {
  const ending = `_${unit.replace("µ", "u")}`.toLowerCase();
  const told = PHYSICAL.has(unit) && name.toLowerCase().endsWith(ending);
  return spaced(told ? name.slice(0, -ending.length) : name);
}

export function describe(doc: string, unit: string, minimum: number | null, maximum: number | null): string {
  const bounds =
    minimum !== null && maximum !== null ? `${minimum} to ${maximum}` : minimum !== null ? `at least ${minimum}` : maximum !== null ? `at most ${maximum}` : "";
  return [doc, bounds && `${bounds} ${unit}`.trim()].filter(Boolean).join("\n");
}

export function SettingField({ setting, value, disabled, onCommit }: { setting: Setting; value: unknown; disabled: boolean; onCommit(value: unknown): void }) {
  const { name, kind, unit, minimum, maximum, step, choices, doc, live, optional } = setting;
  const label = labelOf(name, unit);
  const off = disabled || !live;
  const title = describe(doc, unit, minimum, maximum) + (live ? "" : "\nFixed while the camera runs.");
  if (choices.length) {
    return (
      <Choice label={label} value={String(value)} options={choices.map((each) => [String(each), String(each)] as const)} disabled={off} title={title}
        onChange={(text) => onCommit(choices.find((each) => String(each) === text))} />
    );
  }
  if (kind === "bool") return <Switch label={label} on={value === true} disabled={off} onChange={onCommit} />;
  if (kind === "int" || kind === "float") {
    return (
      <NumberBox label={label} value={typeof value === "number" ? value : null} unit={unit} minimum={minimum} maximum={maximum} step={step}
        whole={kind === "int"} optional={optional} disabled={off} title={title} onCommit={onCommit} />
    );
  }
  if (kind === "str" || kind === "path") return <TextBox label={label} value={typeof value === "string" ? value : ""} title={title} disabled={off} onCommit={onCommit} />;
  const text = Array.isArray(value) ? value.join(kind === "shape" ? " × " : ", ") : value === null || value === undefined ? "" : String(value);
  return <TextBox label={label} value={text} title={title} disabled={off} onCommit={(typed) => onCommit((typed.match(/\d+/g) ?? []).map(Number))} />;
}

/** What a person typed for a field of a command, as text, and what it means. */
export function CommandField({ field, text, onInput }: { field: Field; text: string; onInput(text: string): void }) {
  const id = useId();
  const label = labelOf(field.name, field.unit);
  const title = describe(field.doc, field.unit, field.minimum, field.maximum);
  const box = () => {
    if (field.type === "bool") {
      return <input id={id} type="checkbox" role="switch" checked={text === "true"} onChange={(event) => onInput(String(event.currentTarget.checked))} />;
    }
    if (field.type === "choice") {
      return (
        <select id={id} value={text} onChange={(event) => onInput(event.currentTarget.value)}>
          {field.choices.map((each) => (
            <option key={String(each)} value={JSON.stringify(each)}>
              {String(each)}
            </option>
          ))}
        </select>
      );
    }
    const required = field.required && !field.optional;
    const hint = { list: "comma-separated", json: "JSON" }[field.type as string];
    const numeric = field.type === "int" || field.type === "float";
    return (
      <span class="with-unit">
        {numeric ? (
          <input id={id} type="number" step={field.type === "int" ? 1 : "any"} min={field.minimum ?? undefined} max={field.maximum ?? undefined}
            required={required} value={text} onInput={(event) => onInput(event.currentTarget.value)} />
        ) : (
          <input id={id} type="text" required={required && field.type !== "list"} value={text} placeholder={hint} onInput={(event) => onInput(event.currentTarget.value)} />
        )}
        {field.unit ? <span class="unit">{field.unit}</span> : null}
      </span>
    );
  };
  return (
    <div class={field.type === "bool" ? "field switch" : "field"} title={title}>
      <label for={id}>{label}</label>
      {box()}
    </div>
  );
}

export function initialText(field: Field): string {
  const { default: value, type, choices } = field;
  if (type === "choice") return JSON.stringify(value ?? choices[0] ?? null);
  if (value === null || value === undefined) return type === "bool" ? "false" : "";
  if (type === "list" && Array.isArray(value)) return value.join(", ");
  if (type === "json") return JSON.stringify(value);
  return String(value);
}

/** The value of what was typed; `undefined` leaves the field out. Throws where it is none. */
export function valueOf(field: Field, text: string): unknown {
  if (field.type === "bool") return text === "true";
  if (field.type === "choice") return JSON.parse(text);
  if (field.type === "str") return text;
  if (text.trim() === "") {
    if (field.type === "list") return [];
    if (field.optional) return null;
    if (!field.required) return undefined;
    throw new Error(`${field.name} is missing`);
  }
  if (field.type === "json") return JSON.parse(text);
  if (field.type === "list") {
    const items = field.items;
    return text.split(",").map((part) => (items ? valueOf({ ...items, name: field.name }, part.trim()) : part.trim()));
  }
  const number = Number(text);
  if (!Number.isFinite(number) || (field.type === "int" && !Number.isInteger(number))) throw new Error(`${field.name} is no ${field.type === "int" ? "whole " : ""}number`);
  return number;
}

/** Every so many milliseconds a new picture of what changes by itself. */
export function useTick(ms: number): void {
  const [, set] = useState(0);
  useEffect(() => {
    const timer = window.setInterval(() => set((count) => count + 1), ms);
    return () => window.clearInterval(timer);
  }, [ms]);
}
