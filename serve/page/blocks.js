// The list of cards, in blocks: a browser's work for a frame grows with what it must look through, and of a block that is
// far from the screen it does not look at the cards. So thousands of them scroll as some do.

const LEAST = 36; // cards of a block; fewer would be more blocks, more would be more cards near the screen

const list = document.getElementById("cards");

/** Lays the cards out, and tells which of them are near the screen. */
export class Blocks {
  #columns = 0; // cards that stand side by side; 0: not known yet
  #isOther = false; // whether it was another number when they were arranged last
  #shown = new Set();
  #watched = new IntersectionObserver((entries) => entries.forEach((entry) => this.#turn(entry.target, entry.isIntersecting)), { rootMargin: "800px" });
  #cards;
  #tall;

  /**
   * @param {(item: Item, near: boolean) => void} onNear told when a card comes near the screen, or has gone
   * @param {() => void} onOther told when another number of cards stands side by side: they are to be arranged anew
   */
  constructor(onNear, onOther) {
    this.onNear = onNear;
    this.#cards = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => this.onNear(target.item, isIntersecting)), { rootMargin: "400px" });
    // What a block far away is taken to be as tall as: so the scroll bar tells the truth before all were seen.
    this.#tall = new ResizeObserver(([{ target, contentRect }]) => {
      const rows = Math.ceil(target.children.length / (this.#columns || 1));
      if (rows) list.style.setProperty("--row", `${contentRect.height / rows}px`);
    });
    new ResizeObserver(() => {
      if (this.#shown.size && this.#measure()) onOther();
    }).observe(list);
  }

  /** Shows these items in this order, and no others. Moves as few cards as it can: moving costs time and the focus. */
  arrange(items) {
    const focused = document.activeElement;
    this.#takeOff(items);
    if (!this.#columns) this.#measure();
    if (this.#isOther) while (list.firstElementChild) this.#drop(list.firstElementChild); // they remember heights that are no more
    this.#isOther = false;
    const columns = this.#columns || 1;
    const most = Math.ceil(LEAST / columns) * columns; // else there were gaps in its last row
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

  /** Asks the browser how many cards stand side by side, which costs a layout; gives whether they are others than before. */
  #measure() {
    if (list.closest("[hidden]")) return false;
    const columns = getComputedStyle(list.firstElementChild ?? this.#add()).gridTemplateColumns.split(" ").length;
    if (columns === this.#columns) return false;
    this.#columns = columns;
    this.#isOther = true;
    return true;
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
    block.style.setProperty("--rows", Math.ceil(items.length / (this.#columns || 1)));
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
