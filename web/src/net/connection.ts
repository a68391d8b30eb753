import { signal } from "@preact/signals";
import { type FromServer, type Reply, SUBPROTOCOL } from "./messages";

export type Link = "connecting" | "open" | "lost" | "ended" | "refused";

/** What the server refused, with its reason. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly traceback: string | null = null,
  ) {
    super(message);
  }
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Refused): void;
}

const SILENCE_MS = 5000;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5000;

/** One WebSocket that is opened again when it is lost, and requests with replies over it. */
export class Connection {
  readonly link = signal<Link>("connecting");
  readonly why = signal("");
  /** How many connections there have been. */
  opened = 0;
  private socket: WebSocket | null = null;
  private pause = FIRST_PAUSE_MS;
  private lastHeard = 0;
  private nextId = 1;
  private readonly waiting = new Map<number, Waiting>();

  constructor(
    private readonly onMessage: (message: FromServer) => void,
    private readonly onFrame: (message: ArrayBuffer) => void,
  ) {
    window.setInterval(() => this.watch(), 1000);
  }

  open(): void {
    const address = new URL("ws", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address, [SUBPROTOCOL]);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.opened++;
    this.lastHeard = performance.now();
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (socket !== this.socket) return;
      this.lastHeard = performance.now();
      if (typeof event.data !== "string") {
        this.onFrame(event.data);
        return;
      }
      const message = JSON.parse(event.data) as FromServer;
      if (message.type === "hello") {
        this.pause = FIRST_PAUSE_MS;
        this.link.value = "open";
      }
      if (message.type === "reply") this.settle(message);
      else this.onMessage(message);
    };
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.gone(event.code, event.reason);
    };
  }

  /** Send without a reply; what is said while there is no connection is dropped: all standing wishes are said again on `hello`. */
  send(message: Record<string, unknown>): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Send with a number of its own; returns the reply's value or throws `Refused`. */
  request<T>(message: Record<string, unknown>): Promise<T> {
    return this.numbered<T>(message).reply;
  }

  numbered<T>(message: Record<string, unknown>): { id: number; reply: Promise<T> } {
    const id = this.nextId++;
    const reply = new Promise<unknown>((resolve, reject) => {
      if (this.socket?.readyState !== WebSocket.OPEN) {
        reject(new Refused("closing", "There is no connection to the scope."));
        return;
      }
      this.waiting.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ ...message, id }));
    });
    return { id, reply: reply as Promise<T> };
  }

  end(): void {
    this.link.value = "ended";
  }

  private settle(reply: Reply): void {
    const waiting = this.waiting.get(reply.id);
    this.waiting.delete(reply.id);
    if (!waiting) return;
    if (reply.ok) waiting.resolve(reply.value);
    else waiting.reject(new Refused(reply.error?.code ?? "failed", reply.error?.message ?? "refused", reply.error?.traceback ?? null));
  }

  private watch(): void {
    if (this.link.value === "open" && performance.now() - this.lastHeard > SILENCE_MS) {
      const socket = this.socket;
      this.gone(0, "nothing was heard for 5 s");
      socket?.close();
    }
  }

  private gone(code: number, reason: string): void {
    this.socket = null;
    for (const waiting of this.waiting.values()) waiting.reject(new Refused("closing", "The connection to the scope was lost."));
    this.waiting.clear();
    if (this.link.value === "ended") return;
    if (code === 4001 || code === 4002) {
      this.link.value = "refused";
      this.why.value = code === 4001 ? "This link has expired." : "The page sent what the scope does not understand.";
      return;
    }
    this.link.value = "lost";
    this.why.value = reason;
    window.setTimeout(() => this.open(), this.pause);
    this.pause = Math.min(LONGEST_PAUSE_MS, this.pause * 2);
  }
}
