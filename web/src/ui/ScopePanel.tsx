import type { ScopeView } from "../model/scope";
import type { StreamState, WorkerState } from "../net/messages";
import { StripChart } from "./StripChart";
import { bytes, count, duration, rate } from "./words";

const STATE_KIND: Record<string, string> = {
  running: "good",
  starting: "busy",
  "setting up": "busy",
  restarting: "warn",
  stopping: "busy",
  ended: "off",
  "not responding": "bad",
  "needs consent": "warn",
  failed: "bad",
};

export function ScopePanel({ scope }: { scope: ScopeView }) {
  const state = scope.state.value;
  if (!state) return <p class="quiet">Waiting for the scope …</p>;
  if (scope.hello.value?.mode === "dataset") return <Stored scope={scope} />;
  return (
    <>
      {Object.entries(state.streams).map(([name, stream]) => (
        <StreamSection key={name} scope={scope} name={name} stream={stream} />
      ))}
      {state.workers ? (
        <section>
          <h2>Workers</h2>
          <ul class="workers">
            {state.workers.map((worker) => (
              <Worker key={worker.name} scope={scope} worker={worker} />
            ))}
          </ul>
        </section>
      ) : null}
      <section>
        <h2>Disk and page</h2>
        <dl class="facts">
          {state.disk ? (
            <>
              <dt>Free</dt>
              <dd>{bytes(state.disk.free_bytes)}</dd>
              <dt>Writing</dt>
              <dd>{bytes(state.disk.bytes_per_s)}/s</dd>
              <dt>Full in</dt>
              <dd class={state.disk.full_in_s !== null && state.disk.full_in_s < 900 ? "warn" : ""}>{state.disk.full_in_s === null ? "not being filled" : duration(state.disk.full_in_s)}</dd>
            </>
          ) : null}
          {state.page ? (
            <>
              <dt>Pages open</dt>
              <dd>{count(state.page.clients)}</dd>
            </>
          ) : null}
          {state.uptime_s !== undefined ? (
            <>
              <dt>Running for</dt>
              <dd>{duration(state.uptime_s)}</dd>
            </>
          ) : null}
        </dl>
      </section>
    </>
  );
}

/** What there is to say of a data set: where it is, how many frames, and how many are missing. */
function Stored({ scope }: { scope: ScopeView }) {
  const plate = scope.hello.value?.plate !== undefined;
  return (
    <>
      <section>
        <h2>Stored in</h2>
        <p class="path">{scope.hello.value?.record?.path}</p>
      </section>
      {scope.streams.value.map((stream) => {
        const index = stream.index.value;
        const missing = (index?.gaps ?? []).reduce((sum, [, length]) => sum + length, index?.gaps_more ?? 0);
        const lasts = index?.first_utc_ms && index.last_utc_ms ? (index.last_utc_ms - index.first_utc_ms) / 1000 : 0;
        return (
          <section key={stream.name}>
            <h2>{stream.name}</h2>
            <dl class="facts">
              <dt>{plate ? "Planes of this field" : "Frames"}</dt>
              <dd>{count(index?.frames)}</dd>
              {plate ? null : (
                <>
                  <dt>Ids</dt>
                  <dd>{index ? `${count(index.first_id)} to ${count(index.last_id)}` : "–"}</dd>
                </>
              )}
              <dt>Missing</dt>
              <dd class={missing ? "bad" : ""}>{count(missing)}</dd>
              {index?.first_utc_ms ? (
                <>
                  <dt>Begun</dt>
                  <dd>{new Date(index.first_utc_ms).toLocaleString("en-GB")}</dd>
                </>
              ) : null}
              {index && lasts ? (
                <>
                  <dt>Lasts</dt>
                  <dd>{duration(lasts)}</dd>
                  <dt>Mean rate</dt>
                  <dd>{rate((index.frames - 1) / lasts)}</dd>
                </>
              ) : null}
            </dl>
          </section>
        );
      })}
    </>
  );
}

function StreamSection({ scope, name, stream }: { scope: ScopeView; name: string; stream: StreamState }) {
  if (stream.produced === undefined) return null;
  const dropped = Object.entries(stream.dropped).filter(([, number]) => number > 0);
  const used = stream.ring ? stream.ring.used / Math.max(1, stream.ring.slots) : 0;
  return (
    <section>
      <h2>
        {name} <span class="quiet">{rate(stream.rate_hz)}</span>
      </h2>
      <StripChart scope={scope} stream={name} />
      <dl class="counts">
        <div>
          <dt>produced</dt>
          <dd>{count(stream.produced)}</dd>
        </div>
        <div>
          <dt>stored</dt>
          <dd>{count(stream.stored)}</dd>
        </div>
        <div>
          <dt>shown</dt>
          <dd>{count(stream.shown)}</dd>
        </div>
        <div>
          <dt>skipped</dt>
          <dd>{count(stream.skipped)}</dd>
        </div>
        <div class={stream.missed ? "bad" : ""}>
          <dt>missed</dt>
          <dd>{count(stream.missed)}</dd>
        </div>
        <div class={dropped.length ? "bad" : ""}>
          <dt>dropped</dt>
          <dd>{count(dropped.reduce((sum, [, number]) => sum + number, 0))}</dd>
        </div>
      </dl>
      <p class="reasons">{dropped.length ? dropped.map(([reason, number]) => `${count(number)} ${reason.replace(/_/g, " ")}`).join(" · ") : " "}</p>
      {stream.ring ? (
        <div class="gauge">
          <span>ring</span>
          <meter min={0} max={1} low={0.6} high={0.85} optimum={0} value={used} aria-label={`Ring of ${name}`} />
          <span class="number">
            {stream.ring.used} of {stream.ring.slots}
          </span>
        </div>
      ) : null}
    </section>
  );
}

function Worker({ scope, worker }: { scope: ScopeView; worker: WorkerState }) {
  const kind = STATE_KIND[worker.state] ?? "off";
  return (
    <li class={`worker ${kind}`}>
      <div class="worker-line">
        <span class="dot" aria-hidden="true" />
        <strong title={worker.class}>{worker.name}</strong>
        <span class="worker-state">{worker.state}</span>
        <span class="number">{rate(worker.rate_hz)}</span>
      </div>
      <div class="worker-more">
        <span title="How long ago it last gave a sign of life">♥ {worker.heartbeat_age_s === null ? "–" : `${worker.heartbeat_age_s.toFixed(1)} s`}</span>
        <span title="The part of the time that it works">busy {worker.busy === null ? "–" : `${Math.round(worker.busy * 100)} %`}</span>
        <span class={worker.restarts ? "warn" : ""}>{count(worker.restarts)} {worker.restarts === 1 ? "restart" : "restarts"}</span>
        {worker.dropped ? <span class="bad">{count(worker.dropped)} dropped</span> : null}
        {worker.timeouts ? <span title="Waits in which nothing came">{count(worker.timeouts)} idle</span> : null}
        {worker.pid ? <span>pid {worker.pid}</span> : null}
      </div>
      {worker.last_error ? (
        <details class="error">
          <summary>{worker.last_error}</summary>
          <pre tabIndex={0}>{worker.last_traceback || "no traceback"}</pre>
        </details>
      ) : null}
      {worker.state === "needs consent" ? (
        <button type="button" disabled={!scope.mayControl.value || scope.heldByOther.value}
          onClick={() => void scope.control({ type: "allow_restart", worker: worker.name }, `${worker.name} may start again`)}>
          Allow restart
        </button>
      ) : null}
    </li>
  );
}
