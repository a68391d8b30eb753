import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { ScopeView } from "./model/scope";
import { App } from "./ui/App";
import { Stage } from "./ui/stage";

const scope = new ScopeView();
const stage = new Stage(scope);
render(<App scope={scope} stage={stage} />, document.body);
scope.link.open();

declare global {
  interface Window {
    /** For the console and for tests: what is shown, pixel by pixel. */
    mutoscope: { look(stream: string): Record<string, unknown> | null; latencyMs(): number | null };
  }
}
window.mutoscope = { look: (stream) => stage.look(stream), latencyMs: () => stage.latencyMs.value };
