"use strict";
document.body.classList.add("scripted");
const main = document.querySelector("main");
let current = null;                                   // the take that plays, or was paused

const sections = [...main.querySelectorAll("section")].map(element => {
  const section = { element, takes: [] };
  section.takes = [...element.querySelectorAll(".take")].map(take => {
    const own = { section, element: take, audio: take.querySelector("audio"), head: take.querySelector("i") };
    own.audio.controls = false;
    own.audio.onplay = own.audio.onpause = () => take.classList.toggle("playing", !own.audio.paused);
    take.querySelector("button").onclick = event => {
      event.currentTarget.blur();                     // so that the space bar is ours
      own === current ? toggle() : play(own);
    };
    take.querySelector(".line").onclick = event => {
      const box = event.currentTarget.getBoundingClientRect();
      play(own, (event.clientX - box.left) / box.width * seconds(section));
    };
    return own;
  });
  return section;
});

// Spectrograms, and so positions, are on the recording's time axis.
const seconds = section => section.takes[0].audio.duration || 0;
const position = section => current && current.section === section && !current.audio.ended ? current.audio.currentTime : 0;

async function play(take, at = position(take.section)) {
  if (current && current !== take) {
    current.audio.pause();
    current.element.classList.remove("chosen");
    current.section.element.classList.remove("current");
  }
  current = take;
  take.element.classList.add("chosen");
  take.section.element.classList.add("current");
  for (const { audio } of take.section.takes) audio.preload = "auto";   // ready to be switched to
  take.audio.currentTime = at;
  await take.audio.play().catch(() => {});            // interrupted by the next
}

function toggle() {
  if (current.audio.paused) play(current); else current.audio.pause();
}

function move(step) {
  const shown = [...main.children].map(element => sections.find(section => section.element === element));
  const next = shown[current ? shown.indexOf(current.section) + step : 0];
  if (!next) return;
  play(next.takes[Math.min(current ? current.section.takes.indexOf(current) : 0, next.takes.length - 1)]);
  next.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

document.onkeydown = event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, summary")) return;
  const keys = {
    " ": () => current ? toggle() : move(0),
    ArrowLeft: () => current && (current.audio.currentTime -= 1), ArrowRight: () => current && (current.audio.currentTime += 1),
    ArrowUp: () => move(-1), ArrowDown: () => move(1),
  };
  const take = /^[0-9]$/.test(event.key) && (current?.section ?? sections[0])?.takes[+event.key];
  const action = take ? () => play(take) : keys[event.key];
  if (action) { event.preventDefault(); action(); }
};

const menu = document.querySelector("select");        // not every page has one
if (menu) menu.onchange = ({ target }) => {
  const badness = section => +(section.element.getAttribute("data-" + target.value) ?? -Infinity);
  const order = target.value ? [...sections].sort((a, b) => badness(b) - badness(a)) : sections;
  main.append(...order.map(section => section.element));
  target.blur();
};

(function draw() {
  if (current) {
    const part = current.audio.currentTime / (seconds(current.section) || current.audio.duration || 1);
    for (const { head } of current.section.takes) head.style.left = 100 * Math.min(part, 1) + "%";
  }
  requestAnimationFrame(draw);
})();
