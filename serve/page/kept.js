// Small things that the browser keeps; where that is forbidden they last until the page is left.

/**
 * @param {"localStorage" | "sessionStorage"} storage
 * @param {string | number | null} value null: it is forgotten
 */
export function keep(storage, name, value) {
  try {
    if (value === null) window[storage].removeItem(`mergeline-${name}`);
    else window[storage].setItem(`mergeline-${name}`, value);
  } catch {
    // forbidden
  }
}

/** What was kept; null: nothing. */
export function kept(storage, name) {
  try {
    return window[storage].getItem(`mergeline-${name}`);
  } catch {
    return null;
  }
}
