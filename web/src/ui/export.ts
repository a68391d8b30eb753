/** Hand a file to the person at the browser. */
export function download(name: string, blob: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function csv(columns: ReadonlyMap<string, ArrayLike<number | string>>): Blob {
  const quoted = (text: string): string => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const names = [...columns.keys()];
  const lists = [...columns.values()];
  const rows = Math.max(0, ...lists.map((list) => list.length));
  const lines = [names.map(quoted).join(",")];
  for (let row = 0; row < rows; row++) {
    lines.push(
      lists
        .map((list) => {
          const cell = list[row];
          return cell === undefined || Number.isNaN(cell) ? "" : quoted(String(cell));
        })
        .join(","),
    );
  }
  return new Blob([lines.join("\n") + "\n"], { type: "text/csv" });
}
