// Returns the texts whose contrast with their background is below 4.5 (WCAG 2, level AA), as [text, ratio].
() => {
  const parse = (c) => { const n = (c.match(/[\d.]+/g) || []).map(Number); return n.length < 4 ? [...n.slice(0, 3), 1] : n; };
  const luminance = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const background = (node) => { for (let n = node; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor); if (c[3] > 0.9) return c; }
    return document.body.classList.contains('dark') ? [17, 19, 27, 1] : [246, 240, 228, 1]; };
  const low = [];
  for (const node of document.querySelectorAll('.page-header *, #tabs button, #prompt-box *, .form-section *, .example, .empty-state p, .status, .status b')) {
    const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!hasText || !node.offsetParent) continue;
    const a = luminance(parse(getComputedStyle(node).color).slice(0, 3)), b = luminance(background(node).slice(0, 3));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([node.textContent.trim().slice(0, 30), Math.round(ratio * 10) / 10]);
  }
  return JSON.stringify(low);
}
