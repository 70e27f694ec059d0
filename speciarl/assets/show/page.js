
"use strict";
// Filters of the page of a run. Everything shown stands in the page already; this hides what a filter excludes, and counts.
(() => {
  const form = document.querySelector("form"), count = document.getElementById("count");
  const entries = [...document.querySelectorAll("article")].map(element => ({
    element, label: element.dataset.label, dataset: element.dataset.dataset, levels: element.dataset.levels.split(" "), text: null,
  }));
  const textOf = entry => entry.text ??= entry.element.textContent.toLowerCase();
  const valueOf = name => form.elements[name]?.value ?? "";

  function filter() {
    const label = valueOf("label"), dataset = valueOf("dataset"), words = valueOf("text").toLowerCase().trim();
    const levels = new Set([...form.querySelectorAll("[name=level]:checked")].map(box => box.value));
    const per = {};
    let left = 0;
    for (const entry of entries) {
      const inside = (!label || entry.label === label) && (!dataset || entry.dataset === dataset) && (!words || textOf(entry).includes(words));
      if (inside) for (const level of entry.levels) per[level] = (per[level] ?? 0) + 1;
      const shown = inside && entry.levels.some(level => levels.has(level));
      if (entry.element.hidden === shown) entry.element.hidden = !shown;
      left += shown;
    }
    for (const output of form.querySelectorAll("[data-level]")) output.value = per[output.dataset.level] ?? 0;
    count.value = left === entries.length ? `${left} images` : `${left} of ${entries.length} images`;
  }

  function move(step) {
    const shown = entries.filter(entry => !entry.element.hidden).map(entry => entry.element);
    const at = shown.indexOf(document.activeElement);
    const next = shown[at < 0 ? (step > 0 ? 0 : shown.length - 1) : Math.min(Math.max(at + step, 0), shown.length - 1)];
    if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest" }); }
  }

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") { form.reset(); document.activeElement.blur(); return; }
    if (event.target.matches("input[type=search], select")) return;
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "/") { event.preventDefault(); form.elements.text.focus(); }
  });
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  document.documentElement.classList.add("scripted");
  filter();
})();
