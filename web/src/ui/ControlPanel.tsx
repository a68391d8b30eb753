import { useId, useRef, useState } from "preact/hooks";
import { remember } from "../model/memory";
import { controlName, type ScopeView } from "../model/scope";
import type { CommandAbout, Setting, StreamAbout } from "../net/messages";
import { CommandField, initialText, NumberBox, SettingField, Switch, useTick, valueOf } from "./Fields";
import { count } from "./words";

export function ControlPanel({ scope }: { scope: ScopeView }) {
  const hello = scope.hello.value;
  if (!hello) return <p class="quiet">Waiting for the scope …</p>;
  if (scope.ended.value) return <p class="quiet">The run has ended: there is nothing more to control.</p>;
  const off = !scope.mayControl.value || scope.heldByOther.value;
  return (
    <>
      <LeaseSection scope={scope} />
      <Acquisition scope={scope} off={off} />
      {hello.streams.map((about) => (about.settings.length ? <Settings key={about.name} scope={scope} about={about} off={off} /> : null))}
      {hello.commands.length ? (
        <section>
          <h2>Commands</h2>
          {hello.commands.map((about) => (
            <Command key={about.name} scope={scope} about={about} off={off} />
          ))}
        </section>
      ) : null}
      <Stop scope={scope} off={off} />
    </>
  );
}

function LeaseSection({ scope }: { scope: ScopeView }) {
  useTick(1000);
  const id = useId();
  const [name, setName] = useState(controlName);
  const lease = scope.lease.value;
  const left = Math.max(0, Math.round((scope.leaseEnds - performance.now()) / 1000));
  const viewer = scope.hello.value?.role === "view";
  const who = lease?.holder ? (lease.yours ? "You have control" : `${lease.name || "Somebody"} has control`) : viewer ? "This link only shows" : "Nobody has control";
  return (
    <section>
      <h2>Control</h2>
      <p class="lease-text" role="status">
        {who}
        {lease?.holder ? <span class="quiet"> · {left} s left</span> : null}
      </p>
      {viewer ? null : (
        <>
          <div class="field">
            <label for={id}>Your name</label>
            <input id={id} type="text" maxLength={40} autoComplete="nickname" value={name} placeholder="shown to others"
              onInput={(event) => {
                setName(event.currentTarget.value);
                remember("name", event.currentTarget.value);
              }} />
          </div>
          <div class="row">
            <button type="button" class={lease?.yours ? "" : "primary"} disabled={!scope.mayControl.value || scope.heldByOther.value} onClick={() => void scope.hold(true)}>
              {lease?.yours ? "Keep control" : "Take control"}
            </button>
            <button type="button" disabled={!lease?.yours} onClick={() => void scope.hold(false)}>
              Give back
            </button>
          </div>
        </>
      )}
    </section>
  );
}

function Acquisition({ scope, off }: { scope: ScopeView; off: boolean }) {
  const [frames, setFrames] = useState<number | null>(null);
  const [seconds, setSeconds] = useState<number | null>(null);
  const state = scope.state.value?.scope;
  const record = scope.hello.value?.record ?? null;
  const acquiring = state?.acquiring ?? false;
  return (
    <section>
      <h2>Acquisition</h2>
      <div class="pair">
        <NumberBox label="Frames" value={frames} minimum={1} whole optional disabled={off || acquiring} title="Empty: until stopped" onCommit={setFrames} />
        <NumberBox label="Seconds" value={seconds} minimum={0} optional disabled={off || acquiring} title="Empty: until stopped" onCommit={setSeconds} />
      </div>
      <div class="row">
        <button type="button" class="primary" disabled={off || acquiring} onClick={() => void scope.control({ type: "acquire", frames, seconds, streams: [] }, "Acquiring")}>
          Start
        </button>
        <button type="button" disabled={off || !acquiring} onClick={() => void scope.control({ type: "stop_acquisition" }, "Acquisition stopped")}>
          Stop acquisition
        </button>
      </div>
      <Switch label="Record frames" on={state?.saving ?? false} disabled={off || !record}
        onChange={(on) => void scope.control({ type: "saving", on }, on ? "Frames are recorded" : "Frames are not recorded")} />
      <p class="path" title={record?.path}>
        {record ? record.path : "This scope records nothing."}
      </p>
      {record ? <Folder key={record.subfolder} scope={scope} now={record.subfolder} disabled={off || acquiring} /> : null}
    </section>
  );
}

/** Where the next recording goes: a folder below that of the first one. */
function Folder({ scope, now, disabled }: { scope: ScopeView; now: string; disabled: boolean }) {
  const [text, setText] = useState(now);
  const id = useId();
  return (
    <form
      aria-label="Folder of the next recording"
      onSubmit={(event) => {
        event.preventDefault();
        void scope.control({ type: "folder", folder: text.trim() }, "The next frames go to a new data set");
      }}
    >
      <div class="field">
        <label for={id}>Folder</label>
        <input id={id} type="text" maxLength={1000} value={text} placeholder="such as day2/dish1" disabled={disabled} onInput={(event) => setText(event.currentTarget.value)} />
      </div>
      <div class="row">
        <button type="submit" disabled={disabled || !text.trim() || text.trim() === now}>
          Record there
        </button>
      </div>
    </form>
  );
}

function Settings({ scope, about, off }: { scope: ScopeView; about: StreamAbout; off: boolean }) {
  const now = scope.state.value?.streams[about.name]?.settings ?? {};
  const box = (setting: Setting) => (
    <SettingField key={setting.name} setting={setting} value={setting.name in now ? now[setting.name] : setting.value} disabled={off}
      onCommit={(value) => void scope.control({ type: "setting", stream: about.name, setting: setting.name, value })} />
  );
  const fixed = about.settings.filter(({ live }) => !live);
  return (
    <section>
      <h2>
        {about.name} <span class="quiet">settings</span>
      </h2>
      <div class="settings">{about.settings.filter(({ live }) => live).map(box)}</div>
      {fixed.length ? (
        <details class="fixed">
          <summary>{fixed.length} fixed while the camera runs</summary>
          <div class="settings">{fixed.map(box)}</div>
        </details>
      ) : null}
    </section>
  );
}

function Command({ scope, about, off }: { scope: ScopeView; about: CommandAbout; off: boolean }) {
  const [texts, setTexts] = useState<Record<string, string>>({});
  const [to, setTo] = useState(about.owners[0] ?? "");
  const [answer, setAnswer] = useState<{ text: string; bad: boolean } | null>(null);
  const many = about.owners.length > 1 && !about.broadcast;
  const id = useId();
  const send = async (): Promise<void> => {
    const fields: Record<string, unknown> = {};
    try {
      for (const field of about.fields) {
        const value = valueOf(field, texts[field.name] ?? initialText(field));
        if (value !== undefined) fields[field.name] = value;
      }
    } catch (error) {
      setAnswer({ text: error instanceof Error ? error.message : String(error), bad: true });
      return;
    }
    const value = await scope.control<unknown>({ type: "command", command: about.name, to: many ? to : null, fields });
    if (value === undefined) setAnswer({ text: scope.notice.value?.text ?? "refused", bad: true });
    else setAnswer({ text: value === null ? "done" : `answer: ${typeof value === "string" ? value : JSON.stringify(value)}`, bad: false });
  };
  return (
    <form
      class="command"
      aria-label={about.title}
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <h3>{about.title}</h3>
      {about.doc ? <p class="quiet doc">{about.doc}</p> : null}
      {many ? (
        <div class="field">
          <label for={id}>to</label>
          <select id={id} value={to} onChange={(event) => setTo(event.currentTarget.value)}>
            {about.owners.map((owner) => (
              <option key={owner}>{owner}</option>
            ))}
          </select>
        </div>
      ) : null}
      {about.fields.map((field) => (
        <CommandField key={field.name} field={field} text={texts[field.name] ?? initialText(field)} onInput={(text) => setTexts({ ...texts, [field.name]: text })} />
      ))}
      <div class="row">
        <button type="submit" disabled={off}>
          Send
        </button>
        <output class={answer?.bad ? "bad" : ""}>{answer?.text ?? " "}</output>
      </div>
    </form>
  );
}

function Stop({ scope, off }: { scope: ScopeView; off: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const pending = Object.values(scope.state.value?.streams ?? {}).reduce((sum, each) => sum + (each.pending ?? 0), 0);
  return (
    <section>
      <h2>Scope</h2>
      <div class="row">
        <button type="button" class="danger" disabled={off} onClick={() => dialog.current?.showModal()}>
          Stop the scope …
        </button>
      </div>
      <dialog ref={dialog} aria-labelledby="stop-title">
        <h2 id="stop-title">Stop the scope?</h2>
        <p>Cameras stop, frames on their way ({count(pending)}) are stored, then all workers end. This page ends with it.</p>
        <div class="row">
          <button type="button" onClick={() => dialog.current?.close()} autofocus>
            Go on
          </button>
          <button
            type="button"
            class="danger"
            onClick={() => {
              dialog.current?.close();
              void scope.control({ type: "stop_scope", now: false }, "The scope is stopping");
            }}
          >
            Stop it
          </button>
        </div>
      </dialog>
    </section>
  );
}
