import { useEffect, useRef, useState } from "preact/hooks";
import type { ScopeView } from "../model/scope";
import { Choice } from "./Fields";
import { clock } from "./words";

const LEVELS = [
  ["0", "Everything"],
  ["20", "Info and worse"],
  ["30", "Warnings and worse"],
  ["40", "Errors"],
] as const;

export function LogPanel({ scope }: { scope: ScopeView }) {
  const [least, setLeast] = useState<(typeof LEVELS)[number][0]>("20");
  const list = useRef<HTMLOListElement>(null);
  const atEnd = useRef(true);
  const lines = scope.log.value.filter((line) => line.level >= Number(least)).slice(-500);
  useEffect(() => {
    if (atEnd.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [lines.length, least]);
  return (
    <section class="log">
      <h2>Log</h2>
      <Choice label="Show" value={least} options={LEVELS} onChange={(level) => setLeast(level)} />
      <ol
        ref={list}
        tabIndex={0}
        aria-label="Lines of the log"
        onScroll={(event) => {
          const box = event.currentTarget;
          atEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
        }}
      >
        {lines.map((line, index) => (
          <li key={index} class={line.level >= 40 ? "bad" : line.level >= 30 ? "warn" : ""}>
            <time>{clock(line.utc_ms)}</time> <b>{line.worker}</b> {line.text}
          </li>
        ))}
      </ol>
    </section>
  );
}
