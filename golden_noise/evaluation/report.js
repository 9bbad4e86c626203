"use strict";
(() => {
  const PAGE = 24;
  const find = (selector, root = document) => root.querySelector(selector);
  const form = find("#filters");
  const grid = find("#cards");
  const zoom = find("#zoom");
  if (!form) return;
  const cards = [...grid.children].map((node, position) => ({
    node, position,
    task: node.dataset.task,
    text: find(".prompt", node).textContent.toLowerCase(),
    changes: JSON.parse(node.dataset.changes),
    chip: find(".chip", node),
  }));
  let limit = PAGE, shown = cards;

  const signed = (value) => (value < 0 ? "" : "+") + (Object.is(value, -0) ? 0 : value).toFixed(3);

  // Changes of one card in the order of importance: the chosen metric decides, the others break its ties.
  function ranked(card, method, metric) {
    const all = card.changes[method] || [];
    return [all[metric], ...all.filter((_, k) => k !== metric)];
  }

  function update() {
    const field = form.elements, method = +field.method.value, metric = +field.metric.value;
    const words = field.words.value.trim().toLowerCase();
    const sign = { gains: 1, losses: -1 }[field.order.value] || 0;
    const outcome = field.outcome.value;
    for (const card of cards) card.rank = ranked(card, method, metric);
    shown = cards.filter(({ task, text, rank: [change] }) =>
      (field.task.value === "" || task === field.task.value) && text.includes(words) &&
      (outcome === "" || (outcome === "win" ? change > 0 : outcome === "loss" ? change < 0 : change === 0)));
    shown.sort((a, b) => {
      if (sign) for (let k = 0; k < a.rank.length; k++) if (a.rank[k] !== b.rank[k]) return sign * (b.rank[k] - a.rank[k]);
      return a.position - b.position;
    });
    for (const { chip, rank: [change] } of shown.slice(0, limit)) {
      if (!chip) continue;
      chip.textContent = signed(change);
      chip.className = "chip number " + (change > 0 ? "win" : change < 0 ? "loss" : "tie");
    }
    grid.replaceChildren(...shown.slice(0, limit).map((card) => card.node));
    const visible = Math.min(limit, shown.length);
    find("#count").textContent = shown.length ? `${visible} of ${shown.length.toLocaleString("en")} pairs` : "no pair fits";
    find("#more").hidden = visible === shown.length;
  }

  form.addEventListener("input", () => { limit = PAGE; update(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  find("#more").addEventListener("click", () => { limit += PAGE; update(); });

  let current = 0;
  function open(position) {
    current = (position + shown.length) % shown.length;
    const card = shown[current].node;
    const views = find(".views", card).cloneNode(true);
    for (const figure of views.children) {
      const button = find("button", figure);
      button.replaceWith(...button.childNodes);
      if (!figure.dataset.file) continue;
      const link = document.createElement("a");
      link.href = figure.dataset.file;
      link.target = "_blank";
      link.textContent = "full size";
      find("figcaption", figure).append(link);
    }
    find(".stage", zoom).replaceChildren(...[".prompt", ".about"].map((part) => find(part, card).cloneNode(true)), views);
    if (!zoom.open) zoom.showModal();
  }

  grid.addEventListener("click", (event) => {
    const article = event.target.closest("button.enlarge")?.closest("article");
    if (article) open(shown.findIndex((card) => card.node === article));
  });
  zoom.addEventListener("click", (event) => {
    const action = event.target.closest("button")?.value;
    if (event.target === zoom || action === "close") zoom.close();
    else if (action) open(current + Number(action));
  });
  zoom.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) { event.preventDefault(); open(current + move); }
  });

  form.hidden = false;
  update();
})();
