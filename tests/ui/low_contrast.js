// Texts whose contrast with what is behind them is under 4.5, as [text, ratio].
() => {
  const parse = (c) => { const n = (c.match(/[\d.]+/g) || []).map(Number); return n.length < 4 ? [...n.slice(0, 3), 1] : n; };
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (let n = node; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor); if (c[3] > 0.9) return c; }
    return document.body.classList.contains('dark') ? [17, 19, 27, 1] : [246, 240, 228, 1]; };
  const low = [];
  for (const node of document.querySelectorAll('.masthead *, #tabs button, #composer *, .fold *, .example, .blank p, .status, .status b')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.offsetParent) continue;
    const a = light(parse(getComputedStyle(node).color).slice(0, 3)), b = light(behind(node).slice(0, 3));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([node.textContent.trim().slice(0, 30), Math.round(ratio * 10) / 10]);
  }
  return JSON.stringify(low);
}
