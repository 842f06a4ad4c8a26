// A memo classifier: a model folder's files in, each checked by its manifest; text in, labels out.
import { Tokenizer } from "./vendor/tokenizers.min.mjs";
import { rowsOf, tokenizing } from "./normalize.mjs";
import * as ort from "./vendor/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1;
const MODEL = "onnx/model_int8.onnx";

const text = bytes => new TextDecoder().decode(bytes);
const hex = bytes => Array.from(new Uint8Array(bytes), b => b.toString(16).padStart(2, "0")).join("");

async function fetched(folder, name, otherwise) {
  const answer = await fetch(folder + name, { cache: "no-cache" });
  if (!answer.ok) throw new Error(otherwise);
  return answer.arrayBuffer();
}

async function manifestOf(folder) {
  const bytes = await fetched(folder, "manifest.json", "The model folder has no manifest.json, so nobody can tell whether its files belong together; nothing is classified.");
  let manifest = null;
  try { manifest = JSON.parse(text(bytes)); } catch { /* refused below */ }
  if (manifest?.version !== 1 || !manifest.files || !manifest.labels?.length) throw new Error("manifest.json is not a manifest of version 1; nothing is classified.");
  return manifest;
}

async function checked(folder, name, manifest) {
  const mixed = `${name} is not the file that manifest.json lists; this is a mixed set and nothing is classified.`;
  const bytes = await fetched(folder, name, `${name} is missing from the model folder; nothing is classified.`);
  if (hex(await crypto.subtle.digest("SHA-256", bytes)) !== manifest.files[name]?.sha256) throw new Error(mixed);
  return bytes;
}

export async function openClassifier(folder) {
  const manifest = await manifestOf(folder), max = Math.max(...manifest.files[MODEL]?.lengths ?? [manifest.max_tokens ?? 128]);
  const read = name => checked(folder, name, manifest);
  const files = await Promise.all(["labels.txt", "tokenizer.json", "vocab.txt", "normalize.json", MODEL].map(read));
  const [labels, rules, vocab, table] = files.slice(0, -1).map(text), model = files.at(-1);
  if (labels.trimEnd().split(/\r?\n/).join("\n") !== manifest.labels.join("\n")) throw new Error("labels.txt has other labels than manifest.json; this is a mixed set and nothing is classified.");
  const tokenizer = new Tokenizer(JSON.parse(rules), {});
  const encode = tokenizing(memo => tokenizer.encode(memo).ids, JSON.parse(rules), JSON.parse(table), rowsOf(vocab), max);
  const session = await ort.InferenceSession.create(new Uint8Array(model));

  async function logitsOf(ids) {
    const values = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: ids.map(() => 0) };
    const feeds = session.inputNames.map(n => [n, new ort.Tensor("int64", BigInt64Array.from(values[n], BigInt), [1, ids.length])]);
    return Array.from((await session.run(Object.fromEntries(feeds))).logits.data);
  }

  async function classify(memo) {
    const start = performance.now(), ids = encode(memo), encoded = performance.now();
    const scores = softmax(await logitsOf(ids)), end = performance.now();
    const best = scores.indexOf(Math.max(...scores));
    return { label: manifest.labels[best], score: scores[best], scores, ids, ms: { tokenize: encoded - start, run: end - encoded } };
  }

  const first = await classify("");
  if (first.scores.length !== manifest.labels.length) throw new Error(`${MODEL} has ${first.scores.length} outputs and labels.txt ${manifest.labels.length} labels; nothing is classified.`);
  return { name: manifest.name, file: MODEL, bytes: model.byteLength, labels: manifest.labels, threshold: manifest.thresholds?.score ?? 0, max, encode, classify };
}

function softmax(logits) {
  const top = Math.max(...logits), e = logits.map(v => Math.exp(v - top)), sum = e.reduce((a, b) => a + b);
  return e.map(v => v / sum);
}
