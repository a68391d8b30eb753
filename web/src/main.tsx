import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { ScopeView } from "./model/scope";
import { sendPicture } from "./net/picture";
import { App } from "./ui/App";
import { Stage, type Watched } from "./ui/stage";

const scope = new ScopeView();
const stage = new Stage(scope);
render(<App scope={scope} stage={stage} />, document.body);
scope.onPicture = (request) => void sendPicture(request, stage.colours(), scope.link);
scope.link.open();

declare global {
  interface Window {
    /** For the console, for tests and for measurements. */
    mutoscope: {
      /** What is shown, pixel by pixel. */
      look(stream: string): Record<string, unknown> | null;
      latencyMs(): number | null;
      /** When the first frame was drawn, by `performance.now()`. */
      firstFrameMs(): number | null;
      /** How the server's monotonic clock is known: it is `performance.now()` and an offset, by a ping of this round trip. */
      clock(): { offsetMs: number; tripMs: number } | null;
      /** Note how long each of the next live frames took. */
      watch(frames: number): void;
      watched(): Watched[];
      /** Of a viewer: its windows, the one that is seen, and all layers as they are known here. */
      viewer(): Record<string, unknown>;
      /** The ROIs of a layer on the plane that is seen, and which one that is. */
      rois(layer: string): unknown;
      /** The pixels of what is seen of a layer, as they came. */
      pixels(stream: string): Record<string, unknown> | null;
      /** See a plane: a value of each axis. */
      goTo(at: Record<string, string>): void;
    };
  }
}
window.mutoscope = {
  look: (stream) => stage.look(stream),
  latencyMs: () => stage.latencyMs.value,
  firstFrameMs: () => stage.firstFrameMs,
  clock: () => scope.clock && { offsetMs: scope.clock.offset, tripMs: scope.clock.trip },
  watch: (frames) => Object.assign(stage, { watched: [], watching: frames }),
  watched: () => stage.watched,
  viewer: () => ({
    windows: scope.hello.peek()?.windows ?? [],
    window: scope.layers.window.peek()?.name ?? null,
    layers: scope.streams.peek().map(({ about, contrast }) => ({ ...about.peek(), shown: contrast.look.peek() })),
  }),
  rois: (layer) => scope.layers.rois.peek().get(layer) ?? null,
  pixels: (stream) => stage.pixels(stream),
  goTo: (at) => Object.entries(at).forEach(([axis, value]) => scope.layers.choose(axis, value)),
};
