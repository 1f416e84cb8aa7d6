// What of WCAG 2.2 AA can be checked by looking at a finished page; runs inside the page, by itself.
export function faults() {
  const found = [];
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = '#000';
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
    return { red, green, blue, alpha: alpha / 255 };
  };
  const over = (top, below) => ({
    red: top.red * top.alpha + below.red * (1 - top.alpha),
    green: top.green * top.alpha + below.green * (1 - top.alpha),
    blue: top.blue * top.alpha + below.blue * (1 - top.alpha),
    alpha: 1,
  });
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour.alpha > 0) layers.push(colour);
      if (colour.alpha === 1) break;
    }
    return layers.reduceRight((below, top) => over(top, below), { red: 255, green: 255, blue: 255, alpha: 1 });
  };
  const luminance = ({ red, green, blue }) => {
    const [r, g, b] = [red, green, blue].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const shown = (element) => {
    const box = element.getBoundingClientRect();
    const clipped = element.closest('caption, thead, .unseen, .skip, [hidden], .swatch');
    // Of what is folded away a browser keeps boxes with styles of their last showing.
    return element.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true }) && box.width > 1 && box.height > 1 && !(clipped && clipped.getBoundingClientRect().width <= 12) && !element.closest('.skip');
  };
  const place = (element) => `${element.tagName.toLowerCase()}${element.className.baseVal ?? (element.className && `.${element.className}`)} "${element.textContent.trim().slice(0, 30)}"`;

  // 1.4.3: text stands out from its ground.
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const judged = new Set();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || judged.has(element) || !shown(element) || element.closest('title, noscript, script')) continue;
    judged.add(element);
    const style = getComputedStyle(element);
    const drawn = element.closest('svg');
    const box = drawn && element.parentElement.querySelector('rect');
    let below = ground(element);
    if (box) below = over(rgba(getComputedStyle(box).fill), below);
    const colour = over(rgba(drawn ? style.fill : style.color), below);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const ratio = contrast(colour, below);
    if (ratio < least) found.push(`contrast ${ratio.toFixed(2)} of ${place(element)}`);
  }
  // 2.4.1, 1.3.1, 2.4.2, 3.1.1: landmarks, one first heading, no level left out, a title, a language.
  for (const name of ['main', 'header', 'footer', 'nav', 'h1']) if (!document.querySelector(name)) found.push(`no ${name}`);
  if (document.querySelectorAll('h1').length > 1) found.push('more than one h1');
  let level = 0;
  for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
    const own = Number(heading.tagName[1]);
    // The aside's headings come before those of the main part and stand below its label.
    if (own > level + 1 && !heading.closest('aside')) found.push(`heading level left out: ${place(heading)}`);
    if (!heading.closest('aside')) level = own;
  }
  if (!document.title || !document.documentElement.lang) found.push('no title or no language');
  // 4.1.2, 1.3.1, 1.1.1: whatever acts or shows has a name.
  for (const element of document.querySelectorAll('a[href], button, input:not([type=hidden]), summary, select')) {
    const label = element.labels?.[0]?.textContent || element.getAttribute('aria-label') || element.textContent;
    if (!label.trim()) found.push(`no name: ${element.outerHTML.slice(0, 80)}`);
  }
  for (const element of document.querySelectorAll('svg')) if (!element.getAttribute('aria-label')) found.push('a drawing without name');
  for (const element of document.querySelectorAll('img:not([alt])')) found.push(`no alternative: ${element.src}`);
  for (const element of document.querySelectorAll('table')) {
    if (!element.caption) found.push('a table without caption');
    if (element.querySelector('th:not([scope])')) found.push('a header without scope');
  }
  // 4.1.1: ids are unique, and what refers to one finds it.
  const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
  if (new Set(ids).size < ids.length) found.push('an id is there twice');
  for (const name of ['for', 'aria-labelledby', 'aria-describedby']) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      if (!document.getElementById(element.getAttribute(name))) found.push(`${name} leads nowhere: ${element.getAttribute(name)}`);
    }
  }
  // 2.1.1: what scrolls can be scrolled by keyboard. 2.5.8: targets are 24 by 24, or links within text or far apart.
  for (const element of document.querySelectorAll('pre')) {
    if (element.scrollWidth > element.clientWidth + 1 && element.tabIndex < 0) found.push(`scrolls by mouse alone: ${place(element)}`);
  }
  for (const element of document.querySelectorAll('button, input:not([type=hidden]), .facet a, .top a, .chips a')) {
    const box = element.getBoundingClientRect();
    if (box.width && (box.height < 24 || box.width < 24)) found.push(`target ${box.width.toFixed(0)} by ${box.height.toFixed(0)}: ${place(element)}`);
  }
  return [...new Set(found)];
}
