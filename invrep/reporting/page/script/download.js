// ---- files: figures as SVG and PNG, tables as text

const PIXELS = 3; // of a PNG to one of the page, as print needs

function download(content, name, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

const fileName = (text) => text.normalize("NFKD").replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 80) || "invrep";

// colours as every program reads them: a canvas knows the page's
function asRgb(colour) {
  const context = make("canvas", { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return `rgb(${[...context.getImageData(0, 0, 1, 1).data].slice(0, 3).join(",")})`;
}

// a figure on white that needs no style sheet: text, axes and lines in fixed colours, and the legend below
function standAlone(figure) {
  const svg = figure.querySelector(".plot svg").cloneNode(true);
  svg.querySelector(".rule").remove();
  const [width, height] = svg.getAttribute("viewBox").split(" ").slice(2).map(Number);
  const hue = (element) => asRgb(`oklch(.52 .13 ${element.style.getPropertyValue("--hue")})`);
  for (const element of svg.querySelectorAll(".colour")) {
    for (const part of element.children) {
      if (part.hasAttribute("stroke")) part.setAttribute("stroke", hue(element));
      if (part.hasAttribute("fill")) part.setAttribute("fill", hue(element));
    }
  }
  const looks = { text: { fill: "#333", "font-size": 12, "font-family": "sans-serif" }, ".axis": { stroke: "#ddd" },
    ".line": { fill: "none", "stroke-width": 1.75, "stroke-linejoin": "round" }, ".whisker": { "stroke-width": 1.25 }, ".dot": { "fill-opacity": 0.28 } };
  const [entries, below] = legendOf(figure, width, height, hue);
  svg.append(...entries);
  for (const [selector, look] of Object.entries(looks)) svg.querySelectorAll(selector).forEach((element) => fill(element, look, []));
  svg.querySelectorAll("[class], [style]").forEach((element) => { element.removeAttribute("class"); element.removeAttribute("style"); });
  const size = { width, height: height + below, viewBox: `0 0 ${width} ${height + below}`, xmlns: "http://www.w3.org/2000/svg" };
  fill(svg, size, []);
  svg.prepend(draw("rect", { width, height: height + below, fill: "#fff" }));
  return new XMLSerializer().serializeToString(svg);
}

function legendOf(figure, width, top, hue) {
  const context = make("canvas").getContext("2d");
  context.font = "12px sans-serif";
  const drawn = [];
  let [x, y] = [10, top + 16];
  for (const entry of figure.querySelectorAll(".legend li")) {
    const length = 34 + context.measureText(entry.textContent).width;
    if (x + length > width && x > 10) [x, y] = [10, y + 18];
    drawn.push(draw("path", { d: `M${x} ${y - 4}h14`, stroke: hue(entry), "stroke-width": 3 }), draw("text", { x: x + 19, y }, entry.textContent));
    x += length;
  }
  return [drawn, drawn.length ? y - top + 10 : 0];
}

async function asPng(text) {
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  await image.decode();
  const canvas = make("canvas", { width: PIXELS * image.width, height: PIXELS * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const named = () => `${document.title.split(" · ")[0]} ${figure.querySelector("figcaption").textContent}`;
  const button = (kind, act) => {
    const made = make("button", { type: "button", title: `Download the figure as ${kind}` }, kind);
    made.addEventListener("click", act);
    return made;
  };
  figure.append(make("div", { class: "files" },
    button("SVG", () => download(standAlone(figure), fileName(named()) + ".svg", "image/svg+xml")),
    button("PNG", async () => download(await asPng(standAlone(figure)), fileName(named()) + ".png"))));
}
