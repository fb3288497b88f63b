// What is too pale to be seen or read? Text needs 4.5 on its ground, what is told apart by its colour
// alone 3 (WCAG 2.2, 1.4.3 and 1.4.11). axe looks at HTML's text only; this looks at bars and drawings.
() => {
  const rgb = (text) => text.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (text) => {
    const [r, g, b] = rgb(text).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (rgb(color).length === 3 || rgb(color)[3] === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = new Set();
  const check = (what, a, b, least) => {
    if (ratio(a, b) < least) poor.add(`${what}: ${a} on ${b}: ${ratio(a, b).toFixed(2)}`);
  };
  for (const bar of document.querySelectorAll(".bar-line")) {
    check("bar", getComputedStyle(bar).backgroundColor, ground(bar.parentElement), 3);
  }
  for (const shape of document.querySelectorAll("rect.column, rect.stage")) {
    check("shape", getComputedStyle(shape).fill, ground(shape.closest("div")), 3);
  }
  for (const text of document.querySelectorAll("svg text")) {
    const under = text.classList.contains("took") && text.parentElement.querySelector(".stage");
    const on = under ? getComputedStyle(under).fill : ground(text.closest("div"));
    check(text.textContent, getComputedStyle(text).fill, on, 4.5);
  }
  return [...poor];
}
