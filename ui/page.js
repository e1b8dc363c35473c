// What only the browser can do: keys, day and night, the clipboard, dropping a picture anywhere.
(() => {
  const $ = (selector) => document.querySelector(selector);
  const seen = (node) => node && node.offsetParent !== null;
  const press = (id) => { const node = $(id); if (seen(node)) node.click(); return seen(node); };
  const prompt = () => $("#field-prompt textarea");
  const store = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private windows keep nothing */ } };
  const kept = (key) => { try { return localStorage.getItem(key); } catch { return null; } };

  const write = (area, text, start, end) => {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, text);
    area.dispatchEvent(new Event("input", { bubbles: true }));
    if (start !== undefined) area.setSelectionRange(start, end);
  };

  // Tabs that a phone has no room for are in a menu; the hidden copy that gradio measures is passed over.
  const show = (name) => [...document.querySelectorAll("#tabs > .tab-wrapper > :not(.visually-hidden) button")].find((tab) => tab.textContent.trim() === name)?.click();
  const tab = () => $("#tabs button[role=tab][aria-selected=true]")?.textContent.trim().toLowerCase();

  const copy = async (text) => { try { await navigator.clipboard.writeText(text); } catch { /* the line stays on the page to be copied by hand */ } };

  // Prompts that were drawn, the newest last; -1 is what is being typed.
  let back = -1, typed = "";
  const past = () => JSON.parse(kept("clipgen-prompts") || "[]");
  const remember = () => {
    const text = prompt()?.value.trim();
    if (text && text.length <= 2000) store("clipgen-prompts", JSON.stringify([...past().filter((old) => old !== text), text].slice(-50)));
    back = -1;
  };
  const earlier = (by) => {
    const all = past(), area = prompt();
    if (back === -1) typed = area.value;
    back = Math.max(-1, Math.min(all.length - 1, back + by));
    write(area, back === -1 ? typed : all[all.length - 1 - back]);
  };

  // (words:1.1) around the selection, or the word at the cursor.
  const weigh = (area, by) => {
    let { selectionStart: start, selectionEnd: end, value } = area;
    if (start === end) {
      while (start > 0 && /[\w-]/.test(value[start - 1])) start--;
      while (end < value.length && /[\w-]/.test(value[end])) end++;
    }
    if (start === end) return;
    const around = value.slice(0, start).endsWith("(") && value.slice(end).match(/^:(\d+(?:\.\d+)?)\)/);
    const words = value.slice(start, end);
    const weight = Math.round(((around ? parseFloat(around[1]) : 1) + by) * 10) / 10;
    if (weight < 0 || weight > 2) return;
    const from = around ? start - 1 : start, to = around ? end + around[0].length : end;
    const text = weight === 1 ? words : `(${words}:${weight.toFixed(1)})`;
    const inside = from + (weight === 1 ? 0 : 1);
    write(area, value.slice(0, from) + text + value.slice(to), inside, inside + words.length);
  };

  // A text once it has been still for a moment, so that not every key is sent.
  let moved = 0;
  document.addEventListener("input", () => { moved = Date.now(); }, true);
  const settled = async (text) => {
    for (let left; (left = moved + 200 - Date.now()) > 0;) await new Promise((done) => setTimeout(done, left));
    return prompt()?.value ?? text;
  };

  const generate = () => { remember(); return press("#generate") || press("#load"); };
  const draw = () => { show("Draw"); scrollTo(0, 0); setTimeout(generate, 60); };
  const stop = () => press("#stop") || press("#stop-compare");
  const night = (dark) => { document.body.classList.toggle("dark", dark); document.documentElement.style.colorScheme = dark ? "dark" : "light"; };
  const help = () => { const list = $("#keys"); if (list.open) list.close(); else list.showModal(); };
  const step = (by) => {
    const cells = [...document.querySelectorAll(tab() === "gallery" ? "#wall .thumbnail-item" : "#strip .thumbnail-item")].filter(seen);
    if (!cells.length) return;
    const now = cells.findIndex((cell) => cell.classList.contains("selected"));
    cells[(now + by + cells.length) % cells.length].click();
  };

  const recall = (name) => press(`#${name}-${tab()}`);
  const letters = {
    a: () => recall("all"), s: () => recall("seed"), r: () => recall("remix"), m: () => recall("compare"),
    c: () => press("#swap"), w: () => recall("words"), v: () => recall("vary"), i: () => show("Info"), p: () => { show("Draw"); setTimeout(() => prompt()?.focus(), 60); return true; },
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), "?": help,
  };

  document.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey, area = event.target;
    const types = area.matches?.("input:not([type=range],[type=checkbox],[type=radio]), textarea, select, [contenteditable=true]");
    const take = () => { event.preventDefault(); event.stopPropagation(); };
    if (event.key === "Escape" && !$("#keys").open) { if (stop()) take(); return; }
    if (command && event.key === "Enter") { take(); generate(); return; }
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const by = event.key === "ArrowUp" ? 1 : -1;
      if (event.altKey && (area === prompt() || !types)) { take(); earlier(by); return; }
      if (command && area.matches?.("#field-prompt textarea, #field-negative_prompt textarea")) { take(); weigh(area, by / 10); return; }
    }
    if (types || command || event.altKey || area.closest?.("[role=tablist], [role=slider], [type=range], [type=radio]")) return;
    if (letters[event.key]) { letters[event.key](); if (event.key.length === 1) take(); }
  }, true);

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest?.(selector);
    if (at("#generate")) remember();
    if (at("#night")) { night(!document.body.classList.contains("dark")); store("clipgen-night", document.body.classList.contains("dark")); }
    if (at("#keys-button")) help();
    if (event.target.id === "keys") event.target.close();
    const word = at("[data-veil]");
    if (word) {
      const pressed = word.getAttribute("aria-pressed") === "true", figure = word.closest("figure");
      figure.querySelectorAll("[data-veil]").forEach((other) => other.setAttribute("aria-pressed", other === word && !pressed));
      const veil = figure.querySelector(".veil");
      veil.src = word.dataset.veil;
      veil.hidden = pressed;
    }
    const example = at("[data-prompt]");
    if (example) { write(prompt(), example.dataset.prompt); setTimeout(generate, 60); }
  });

  // A picture dropped anywhere goes to Info.
  document.addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (!file || event.target.closest?.("#drop")) return;
    event.preventDefault();
    show("Info");
    const wait = setInterval(() => {
      const input = $("#drop input[type=file]");
      if (!input) return;
      clearInterval(wait);
      const moved = new DataTransfer();
      moved.items.add(file);
      input.files = moved.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }, 50);
  });

  const chosen = kept("clipgen-night");
  const dusk = () => night(chosen === null ? matchMedia("(prefers-color-scheme: dark)").matches : chosen === "true");
  if (document.body) dusk(); else document.addEventListener("DOMContentLoaded", dusk);

  window.clipgen = { show, draw, copy, settled, ready: () => { dusk(); document.body.dataset.ready = "1"; } };
})();
