// The page: what is typed goes to the worker at once, the newest text wins; many lines go to it in small portions.
const $ = id => document.getElementById(id);
const PORTION = 8;
const worker = new Worker("worker.mjs", { type: "module" });
const waiting = new Map();
let about = null, gloss = {}, asked = 0;

function ask(memos) {
  worker.postMessage({ id: ++asked, memos });
  return new Promise((resolve, reject) => waiting.set(asked, { resolve, reject }));
}

worker.onmessage = ({ data }) => {
  if (data.about) return begin(data.about);
  if (data.refused) return refuse(data.refused);
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  data.error ? reject(new Error(data.error)) : resolve(data.answers);
};
worker.onerror = e => refuse(`The classifier did not start: ${e.message ?? "this browser cannot run it"}.`);

async function begin(given) {
  gloss = await (await fetch("gloss.json")).json();
  about = given;
  $("about").textContent = `${about.name} · ${about.file} · ${(about.bytes / 1e6).toFixed(1)} MB · ${about.labels.length} 类 labels`;
  $("memo").disabled = false;
  $("memo").focus();
  typed();
}

function refuse(sentence) {
  $("refused").textContent = sentence;
  $("refused").hidden = false;
  $("about").textContent = "已停止 stopped";
  $("memo").disabled = true;
}

// One memo, while it is typed

let running = false, changed = false;

async function typed() {
  changed = true;
  if (!about || running) return;
  running = true;
  try {
    while (changed) {
      changed = false;
      const memo = $("memo").value;
      show(memo.trim() ? (await ask([memo]))[0] : null);
      $("result").dataset.memo = memo;
    }
  } catch (e) { refuse(e.message); }
  running = false;
}

const percent = score => `${(100 * score).toFixed(1)} %`;
const unsure = answer => answer.score < about.threshold;
const hue = label => Math.round(165 + 360 * about.labels.indexOf(label) / about.labels.length) % 360;

function show(answer) {
  $("result").toggleAttribute("data-on", !!answer);
  $("label").textContent = answer?.label ?? "—";
  $("gloss").textContent = gloss[answer?.label] ?? "";
  $("unsure").hidden = !answer || !unsure(answer);
  $("result").style.setProperty("--hue", answer ? hue(answer.label) : 165);
  $("top").replaceChildren(...(answer ? best(answer.scores, 3) : []));
  $("latency").textContent = answer ? `${(answer.ms.tokenize + answer.ms.run).toFixed(1)} ms = 切词 tokenize ${answer.ms.tokenize.toFixed(1)} + 推理 run ${answer.ms.run.toFixed(1)} · ${answer.ids.length} tokens` : "";
}

function best(scores, n) {
  const order = scores.map((s, i) => [s, about.labels[i]]).sort((a, b) => b[0] - a[0]).slice(0, n);
  return order.map(([score, label]) => {
    const row = element("li", "", element("span", label), element("i", ""), element("span", percent(score)));
    row.style.setProperty("--hue", hue(label));
    row.style.setProperty("--share", score);
    return row;
  });
}

function element(tag, words, ...children) {
  const e = document.createElement(tag);
  e.textContent = words;
  e.append(...children);
  return e;
}

$("memo").addEventListener("input", e => { if (!e.isComposing) typed(); });
$("memo").addEventListener("compositionend", typed);
$("memo").addEventListener("keydown", e => {
  if (e.isComposing || e.shiftKey) return;
  if (e.key === "Enter") { e.preventDefault(); keep(); }
  if (e.key === "Escape") empty();
});
$("memo").addEventListener("paste", e => {
  const lines = e.clipboardData.getData("text").split(/\r\n|\r|\n/).filter(l => l.trim());
  if (lines.length > 1) { e.preventDefault(); add(lines); }
});

$("add").addEventListener("click", () => { keep(); $("memo").focus(); });

function keep() { add([$("memo").value]); empty(); }
function empty() { $("memo").value = ""; typed(); }

// Many memos

let rows = [], queue = [], working = false, taken = 0;
let order = { by: "n", down: false };

function add(memos) {
  const wanted = memos.filter(m => m.trim());
  if (!about || !wanted.length) return;
  queue.push(...wanted);
  taken += wanted.length;
  $("list").hidden = false;
  if (!working) work();
}

async function work() {
  working = true;
  const start = performance.now();
  let done = 0;
  $("progress").hidden = false;
  try {
    while (queue.length) {
      const memos = queue.splice(0, PORTION), round = rows;
      const answers = await ask(memos);
      done += memos.length;
      if (round !== rows) continue;
      const made = answers.map((a, i) => ({ n: rows.length + i + 1, memo: memos[i], label: a.label, score: a.score, unsure: unsure(a) }));
      rows.push(...made);
      $("rows").append(...made.map(line));
      counted();
      $("rate").textContent = `${((performance.now() - start) / done).toFixed(1)} ms/条 each`;
    }
  } catch (e) { refuse(e.message); }
  $("progress").hidden = true;
  working = false;
  sorted();
}

function counted() {
  $("count").textContent = rows.length < taken ? `${rows.length} / ${taken}` : rows.length;
  $("progress").max = taken;
  $("progress").value = rows.length;
}

function line(row) {
  const tag = element("span", row.label), cell = element("td", "", tag, " ", element("small", row.unsure ? "不确定 unsure" : gloss[row.label] ?? ""));
  tag.className = "tag";
  tag.style.setProperty("--hue", hue(row.label));
  return element("tr", "", element("td", row.n), element("td", row.memo), cell, element("td", percent(row.score)));
}

function sorted() {
  const { by, down } = order, compare = (a, b) => (typeof a[by] === "number" ? a[by] - b[by] : a[by].localeCompare(b[by], "zh")) || a.n - b.n;
  $("rows").replaceChildren(...rows.toSorted((a, b) => down ? compare(b, a) : compare(a, b)).map(line));
  for (const b of document.querySelectorAll("th button")) {
    const th = b.parentElement;
    b.dataset.by === by ? th.setAttribute("aria-sort", down ? "descending" : "ascending") : th.removeAttribute("aria-sort");
  }
}

document.querySelector("thead").addEventListener("click", e => {
  const by = e.target.closest("button")?.dataset.by;
  if (!by) return;
  order = { by, down: order.by === by && !order.down };
  sorted();
});

const quoted = value => `"${String(value).replaceAll('"', '""')}"`;
const csv = () => ["memo,label,score", ...rows.map(r => [quoted(r.memo), quoted(r.label), r.score.toFixed(4)].join(","))].join("\r\n") + "\r\n";

$("copy").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(csv()); $("rate").textContent = "已复制 copied"; }
  catch { $("rate").textContent = "浏览器不让复制 the browser refuses to copy"; }
});
$("clear").addEventListener("click", () => {
  [rows, queue, taken] = [[], [], 0];
  $("list").hidden = true;
  sorted(); counted();
  $("memo").focus();
});
