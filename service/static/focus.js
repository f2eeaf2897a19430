/** The focus of those who use the keyboard, which must not be lost with what goes away. */

/** Hide `part`, and lead whoever was in it on to `next`. */
export function leave(part, next) {
  const inside = part.contains(document.activeElement);
  part.hidden = true;
  if (inside) {
    next.focus({ preventScroll: true });
  }
}
