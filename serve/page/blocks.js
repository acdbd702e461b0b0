// The list of cards, in blocks: a browser's work for a frame grows with what it must look through, and of a block that is
// far from the screen it does not look at the cards. So thousands of them scroll as some do.

const LEAST = 36; // cards of a block; fewer would be more blocks, more would be more cards near the screen

const list = document.getElementById("cards");

/** Lays the cards out, and tells which of them are near the screen. */
export class Blocks {
  #rows = 0; // of a block, all of which are full
  #columns = 0;
  #shown = new Set();
  #watched = new IntersectionObserver((entries) => entries.forEach((entry) => this.#turn(entry.target, entry.isIntersecting)), { rootMargin: "800px" });
  #cards;

  /** @param {(item: Item, near: boolean) => void} onNear told when a card comes near the screen, or has gone */
  constructor(onNear) {
    this.onNear = onNear;
    this.#cards = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => this.onNear(target.item, isIntersecting)), { rootMargin: "400px" });
    // What a block far away is taken to be as tall as: so the scroll bar tells the truth before all were seen.
    this.#tall = new ResizeObserver(([{ target, contentRect }]) => {
      const rows = Math.ceil(target.children.length / this.#columns);
      if (rows) list.style.setProperty("--row", `${contentRect.height / rows}px`);
    });
  }
  #tall;

  /** How many cards stand side by side; asks the browser, so it costs a layout. */
  #sideBySide() {
    const probe = list.firstElementChild ?? this.#add();
    return getComputedStyle(probe).gridTemplateColumns.split(" ").length;
  }

  /** Whether a row holds another number of cards than it did: then the blocks' last rows have gaps. */
  get isOld() {
    return this.#shown.size > 0 && !list.closest("[hidden]") && this.#sideBySide() !== this.#columns;
  }

  /** Shows these items in this order, and no others. Moves as few cards as it can: moving costs time and the focus. */
  arrange(items) {
    const focused = document.activeElement;
    this.#takeOff(items);
    this.#measure();
    const most = this.#rows * this.#columns;
    let place = 0;
    for (let start = 0; start < items.length; start += most) {
      this.#fill(list.children[place++] ?? this.#add(), items.slice(start, start + most));
    }
    while (list.children.length > place) this.#drop(list.lastElementChild);
    if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
  }

  #takeOff(items) {
    const wanted = new Set(items);
    for (const item of this.#shown) {
      if (wanted.has(item)) continue;
      this.#leave(item.card);
      item.card.remove();
    }
    this.#shown = wanted;
  }

  #measure() {
    const columns = list.closest("[hidden]") ? this.#columns || 1 : this.#sideBySide();
    if (columns === this.#columns) return;
    this.#columns = columns;
    this.#rows = Math.ceil(LEAST / columns);
    while (list.firstElementChild) this.#drop(list.firstElementChild); // they remember heights that are no more
  }

  #fill(block, items) {
    let next = block.firstElementChild;
    for (const { card } of items) {
      if (card !== next && card === next?.nextElementSibling) {
        next.remove(); // it comes further down
        next = card;
      }
      if (card === next) {
        next = next.nextElementSibling;
        continue;
      }
      block.insertBefore(card, next);
      if (block.near) this.#cards.observe(card);
      else this.#leave(card);
    }
    block.style.setProperty("--rows", Math.ceil(items.length / this.#columns));
  }

  #add() {
    const block = document.createElement("div");
    block.className = "block";
    block.setAttribute("role", "presentation"); // for who hears the page all cards are one list
    list.append(block);
    this.#watched.observe(block);
    if (list.firstElementChild === block) this.#tall.observe(block);
    return block;
  }

  #drop(block) {
    this.#watched.unobserve(block);
    this.#tall.unobserve(block);
    for (const card of block.children) this.#leave(card);
    block.remove();
  }

  #turn(block, near) {
    block.near = near;
    for (const card of block.children) {
      if (near) this.#cards.observe(card);
      else this.#leave(card);
    }
  }

  #leave(card) {
    this.#cards.unobserve(card);
    if (card.item.near) this.onNear(card.item, false);
  }
}
