// node check_golden.mjs golden.json tokenizer.mjs
// tokenizer.mjs exports tokenize(text) -> ids (may be async), and may export scores(text) -> one number a label,
// with file = 'onnx/model_int8.onnx' to say whose tolerance holds.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [file, module] = process.argv.slice(2);
if (!module) {
  console.error("usage: node check_golden.mjs golden.json tokenizer.mjs");
  process.exit(2);
}
const golden = JSON.parse(readFileSync(file, "utf8"));
const client = await import(pathToFileURL(resolve(module)));
const text = (c) => c.text ?? String.fromCharCode(...c.utf16);
const tolerance = golden.tolerance[client.file ?? golden.scores_from];
const wrong = {};
for (const c of golden.cases) {
  const ids = Array.from(await client.tokenize(text(c)), Number);
  const apart = client.scores ? Math.max(...Array.from(await client.scores(text(c)), (s, i) => Math.abs(s - c.scores[i]))) : 0;
  if (ids.join() === c.ids.join() && apart <= tolerance) continue;
  (wrong[c.group] ??= []).push({ text: text(c), want: c.ids.join(" "), got: ids.join(" "), apart });
}
for (const [group, cases] of Object.entries(wrong)) {
  const { text, want, got, apart } = cases[0];
  console.log(
    `${group}: ${cases.length} wrong, first ${JSON.stringify(text.slice(0, 40))}\n  want ${want.slice(0, 100)}\n  got  ${got.slice(0, 100)}${apart > tolerance ? `\n  scores apart ${apart}` : ""}`,
  );
}
const count = Object.values(wrong).flat().length;
console.log(`${golden.cases.length - count} of ${golden.cases.length} equal`);
process.exitCode = count ? 1 : 0;
