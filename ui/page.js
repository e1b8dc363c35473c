// What only the browser can do: keyboard shortcuts, dark mode, the clipboard, dropping a file anywhere on the page.
(() => {
  const $ = (selector) => document.querySelector(selector);
  const isVisible = (node) => node && node.offsetParent !== null;
  const click = (selector) => { const node = $(selector); if (isVisible(node)) node.click(); return isVisible(node); };
  const promptField = () => $("#field-prompt textarea");
  const save = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private windows may refuse */ } };
  const load = (key) => { try { return localStorage.getItem(key); } catch { return null; } };

  // Sets the text of a textarea as if it were typed, so that Gradio notices it.
  const setText = (area, text, start, end) => {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, text);
    area.dispatchEvent(new Event("input", { bubbles: true }));
    if (start !== undefined) area.setSelectionRange(start, end);
  };

  // Tabs that do not fit on a phone are in a menu; Gradio keeps a hidden copy of each tab button to measure its width.
  const showTab = (name) => [...document.querySelectorAll("#tabs > .tab-wrapper > :not(.visually-hidden) button")].find((tab) => tab.textContent.trim() === name)?.click();
  const currentTab = () => $("#tabs button[role=tab][aria-selected=true]")?.textContent.trim().toLowerCase();

  const copy = async (text) => { try { await navigator.clipboard.writeText(text); } catch { /* the text stays visible and can be copied by hand */ } };

  // Earlier prompts, the newest last. `historyIndex` counts back from the newest; -1 is the text being typed.
  let historyIndex = -1, draft = "";
  const promptHistory = () => JSON.parse(load("clipgen-prompts") || "[]");
  const rememberPrompt = () => {
    const text = promptField()?.value.trim();
    if (text && text.length <= 2000) save("clipgen-prompts", JSON.stringify([...promptHistory().filter((other) => other !== text), text].slice(-50)));
    historyIndex = -1;
  };
  const showEarlierPrompt = (offset) => {
    const prompts = promptHistory(), area = promptField();
    if (historyIndex === -1) draft = area.value;
    historyIndex = Math.max(-1, Math.min(prompts.length - 1, historyIndex + offset));
    setText(area, historyIndex === -1 ? draft : prompts[prompts.length - 1 - historyIndex]);
  };

  // Changes the weight of the selection, or of the word at the cursor: fox -> (fox:1.1).
  const changeWeight = (area, delta) => {
    let { selectionStart: start, selectionEnd: end, value } = area;
    if (start === end) {
      while (start > 0 && /[\w-]/.test(value[start - 1])) start--;
      while (end < value.length && /[\w-]/.test(value[end])) end++;
    }
    if (start === end) return;
    const existing = value.slice(0, start).endsWith("(") && value.slice(end).match(/^:(\d+(?:\.\d+)?)\)/);
    const words = value.slice(start, end);
    const weight = Math.round(((existing ? parseFloat(existing[1]) : 1) + delta) * 10) / 10;
    if (weight < 0 || weight > 2) return;
    const from = existing ? start - 1 : start, to = existing ? end + existing[0].length : end;
    const text = weight === 1 ? words : `(${words}:${weight.toFixed(1)})`;
    const selection = from + (weight === 1 ? 0 : 1);
    setText(area, value.slice(0, from) + text + value.slice(to), selection, selection + words.length);
  };

  // Resolves with the prompt 200 ms after the last key, so that not every key is sent to the server.
  let lastInput = 0;
  document.addEventListener("input", () => { lastInput = Date.now(); }, true);
  const debounce = async (text) => {
    for (let left; (left = lastInput + 200 - Date.now()) > 0;) await new Promise((done) => setTimeout(done, left));
    return promptField()?.value ?? text;
  };

  // On a phone a result may be far below the button that was pressed: scrolls to it if it is not on the screen.
  const reveal = (selector) => { const node = $(selector); if (isVisible(node) && node.getBoundingClientRect().top > innerHeight - 80) node.scrollIntoView({ behavior: "smooth", block: "start" }); };

  const pressGenerate = () => { rememberPrompt(); return click("#generate") || click("#load"); };
  const generate = () => { showTab("Generate"); scrollTo(0, 0); setTimeout(pressGenerate, 60); };
  const stop = () => click("#stop") || click("#stop-compare");
  const setDark = (dark) => { document.body.classList.toggle("dark", dark); document.documentElement.style.colorScheme = dark ? "dark" : "light"; };
  const toggleKeys = () => { const dialog = $("#keys"); if (dialog.open) dialog.close(); else dialog.showModal(); };
  const selectImage = (offset) => {
    const grid = currentTab() === "gallery" ? "#gallery-grid" : "#thumbnails";
    const items = [...document.querySelectorAll(`${grid} .thumbnail-item`)].filter(isVisible);
    if (!items.length) return;
    const index = items.findIndex((item) => item.classList.contains("selected"));
    items[(index + offset + items.length) % items.length].click();
  };

  const imageAction = (name) => click(`#${name}-${currentTab()}`);
  const shortcuts = {
    a: () => imageAction("all"), s: () => imageAction("seed"), r: () => imageAction("remix"), m: () => imageAction("compare"),
    w: () => imageAction("words"), v: () => imageAction("vary"), c: () => click("#swap"), i: () => showTab("Info"),
    p: () => { showTab("Generate"); setTimeout(() => promptField()?.focus(), 60); },
    ArrowLeft: () => selectImage(-1), ArrowRight: () => selectImage(1), "?": toggleKeys,
  };

  document.addEventListener("keydown", (event) => {
    const ctrl = event.ctrlKey || event.metaKey, target = event.target;
    const isTextField = target.matches?.("input:not([type=range],[type=checkbox],[type=radio]), textarea, select, [contenteditable=true]");
    const consume = () => { event.preventDefault(); event.stopPropagation(); };
    if (event.key === "Escape" && !$("#keys").open) { if (stop()) consume(); return; }
    if (ctrl && event.key === "Enter") { consume(); pressGenerate(); return; }
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const direction = event.key === "ArrowUp" ? 1 : -1;
      if (event.altKey && (target === promptField() || !isTextField)) { consume(); showEarlierPrompt(direction); return; }
      if (ctrl && target.matches?.("#field-prompt textarea, #field-negative_prompt textarea")) { consume(); changeWeight(target, direction / 10); return; }
    }
    if (isTextField || ctrl || event.altKey || target.closest?.("[role=tablist], [role=slider], [type=range], [type=radio]")) return;
    if (shortcuts[event.key]) { shortcuts[event.key](); if (event.key.length === 1) consume(); }
  }, true);

  // Shows the mask of the pressed word over the image; a second press hides it.
  const toggleWord = (word) => {
    const wasPressed = word.getAttribute("aria-pressed") === "true", figure = word.closest("figure");
    figure.querySelectorAll("[data-mask]").forEach((other) => other.setAttribute("aria-pressed", other === word && !wasPressed));
    const mask = figure.querySelector(".mask");
    mask.src = word.dataset.mask;
    mask.hidden = wasPressed;
  };

  document.addEventListener("click", (event) => {
    const closest = (selector) => event.target.closest?.(selector);
    if (closest("#generate")) rememberPrompt();
    if (closest("#dark-mode")) { const dark = !document.body.classList.contains("dark"); setDark(dark); save("clipgen-dark", dark); }
    if (closest("#keys-button")) toggleKeys();
    if (event.target.id === "keys") event.target.close();
    if (closest("[data-mask]")) toggleWord(closest("[data-mask]"));
    const example = closest("[data-prompt]");
    if (example) { setText(promptField(), example.dataset.prompt); setTimeout(pressGenerate, 60); }
  });

  // A file that is dropped outside the upload areas goes to the Info tab, which Gradio builds when it is first selected.
  document.addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (!file || event.target.closest?.("#info-upload, #clip-upload, #clip-uploads, #field-like, #field-vary")) return;
    event.preventDefault();
    showTab("Info");
    const timer = setInterval(() => {
      const input = $("#info-upload input[type=file]");
      if (!input) return;
      clearInterval(timer);
      const transfer = new DataTransfer();
      transfer.items.add(file);
      input.files = transfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }, 50);
  });

  const restoreDark = () => {
    const saved = load("clipgen-dark");
    setDark(saved === null ? matchMedia("(prefers-color-scheme: dark)").matches : saved === "true");
  };
  if (document.body) restoreDark(); else document.addEventListener("DOMContentLoaded", restoreDark);

  window.clipgen = { showTab, generate, copy, debounce, reveal, ready: () => { restoreDark(); document.body.dataset.ready = "1"; } };
})();
