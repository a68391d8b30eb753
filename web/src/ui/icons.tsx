import type { ComponentChildren } from "preact";

const paths: Record<string, ComponentChildren> = {
  move: <path d="M8 2v12M2 8h12M8 2 6 4m2-2 2 2M8 14l-2-2m2 2 2-2M2 8l2-2M2 8l2 2m10-2-2-2m2 2-2 2" />,
  rectangle: <rect x="2.5" y="4" width="11" height="8" />,
  ellipse: <ellipse cx="8" cy="8" rx="6" ry="4.2" />,
  polygon: <path d="M3 6 9 2.5l4.5 5L11 13l-7-1z" />,
  freehand: <path d="M3.2 9.5c-1.4-3 1.2-6.6 4-6.3 2.2.2 2 1.8 3.8 2.4 2.6.8 3 3.6 1 5.2-1.6 1.3-2.6.4-4.2 1.4-1.8 1.2-3.8-.6-4.6-2.7z" />,
  line: <path d="M3 13 13 3" />,
  point: (
    <>
      <circle cx="8" cy="8" r="1.4" fill="currentColor" />
      <path d="M8 1.8v3M8 11.2v3M1.8 8h3M11.2 8h3" />
    </>
  ),
  pause: <path d="M5.5 3v10M10.5 3v10" stroke-width="2.2" />,
  play: <path d="m5 3 8 5-8 5z" fill="currentColor" />,
  live: <path d="m3 3 7 5-7 5zM13 3v10" fill="currentColor" />,
  back: <path d="m10.5 3-6 5 6 5z" />,
  forward: <path d="m5.5 3 6 5-6 5z" />,
  camera: (
    <>
      <rect x="2" y="4.5" width="12" height="8.5" rx="1.5" />
      <circle cx="8" cy="8.8" r="2.3" />
      <path d="m5.5 4.5 1-1.7h3l1 1.7" />
    </>
  ),
  fit: <path d="M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10" />,
  plus: <path d="M8 3.5v9M3.5 8h9" />,
  minus: <path d="M3.5 8h9" />,
  help: (
    <>
      <circle cx="8" cy="8" r="6.2" />
      <path d="M6.2 6.3a1.8 1.8 0 1 1 2.6 1.6c-.6.3-.8.6-.8 1.3M8 11.2v.2" />
    </>
  ),
  over: (
    <>
      <circle cx="6" cy="8" r="4" />
      <circle cx="10" cy="8" r="4" />
    </>
  ),
  side: <path d="M2 3.5h5v9H2zM9 3.5h5v9H9z" />,
  remove: <path d="m4 4 8 8M12 4l-8 8" />,
  warning: <path d="M8 2.5 14 13H2zM8 6.5v3M8 11.2v.3" />,
};

export function Icon({ name }: { name: string }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round">
      {paths[name] ?? paths["polygon"]}
    </svg>
  );
}
