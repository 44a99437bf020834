// ---- pictures and films, which lie in blocks of JSON: a block is parsed when one of its pictures is first seen

const blocks = new Map();

// null while the browser has not read the block yet: a long page begins before its end is there
function entry(kind, number) {
  const id = `${kind}-${Math.floor(number / data.block)}`;
  if (!blocks.has(id)) {
    const element = byId(id);
    if (!element || (document.readyState === "loading" && !element.nextElementSibling)) return null;
    blocks.set(id, JSON.parse(element.textContent));
  }
  return blocks.get(id)[number % data.block];
}

const thumb = (number) => "data:image/webp;base64," + entry("thumbs", number);

// an image gets its source when it comes near the window, so that far ones are never decoded
const near = { rootMargin: "800px", scrollMargin: "800px" };
const pictureWatch = new IntersectionObserver((found) => found.filter((one) => one.isIntersecting).forEach((one) => fetchThumb(one.target)), near);
const early = new Set();
addEventListener("DOMContentLoaded", () => early.forEach(fetchThumb));

function fetchThumb(img) {
  pictureWatch.unobserve(img);
  const number = Number(img.dataset.thumb);
  if (entry("thumbs", number) == null) return early.add(img);
  img.src = thumb(number);
}

function picture(number, alt) {
  if (number < 0) return make("div", { class: "nothing" }, alt.startsWith("Photo no photo") ? "no photo" : "picture missing");
  const img = make("img", { class: "picture", alt, decoding: "async", "data-thumb": number });
  pictureWatch.observe(img);
  return img;
}
