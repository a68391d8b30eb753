/** What this browser remembers from one visit to the next; nothing, where it is told to keep nothing. */

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch (error) {
    console.info("this browser remembers nothing:", error);
    return null;
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch (error) {
    console.info(`"${key}" is not remembered:`, error);
  }
}
