import type { State } from "../net/messages";

/** The last minutes of one stream, two points a second: rates, and how many exposures were missed or frames dropped in each half second. */
export interface Strip {
  utc: number[];
  produced: (number | null)[];
  stored: (number | null)[];
  lost: (number | null)[];
}

const KEPT = 600;

export class Strips {
  readonly of = new Map<string, Strip>();
  private before = new Map<string, { produced: number; stored: number; lost: number; at: number }>();

  hear(state: State): void {
    for (const [name, stream] of Object.entries(state.streams)) {
      if (stream.produced === undefined) continue;
      let strip = this.of.get(name);
      if (!strip) this.of.set(name, (strip = { utc: [], produced: [], stored: [], lost: [] }));
      const lost = stream.missed + Object.values(stream.dropped).reduce((sum, count) => sum + count, 0);
      const now = { produced: stream.produced, stored: stream.stored ?? 0, lost, at: state.monotonic_ms };
      const before = this.before.get(name);
      this.before.set(name, now);
      if (!before || now.at <= before.at || now.produced < before.produced) continue;
      const seconds = (now.at - before.at) / 1000;
      strip.utc.push(state.utc_ms / 1000);
      strip.produced.push((now.produced - before.produced) / seconds);
      strip.stored.push(stream.stored === null ? null : (now.stored - before.stored) / seconds);
      strip.lost.push(now.lost > before.lost ? now.lost - before.lost : null);
      for (const list of [strip.utc, strip.produced, strip.stored, strip.lost]) if (list.length > KEPT) list.shift();
    }
  }
}
