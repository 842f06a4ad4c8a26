// tokenize(text) -> ids with transformers.js, for check_golden.mjs. MODEL_FOLDER holds tokenizer.json, vocab.txt and normalize.json (the bundled
// model's by default), NODE_HOME is the folder whose node_modules has @huggingface/transformers (this one by default), MAX_TOKENS the length (by default the
// tokenizer's own).
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { normalizer, rowsOf, tokenizing } from "./normalize.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.env.MODEL_FOLDER ?? join(here, "../memo");
const find = createRequire(join(process.env.NODE_HOME ?? here, "from.js"));
const { BertTokenizer } = await import(pathToFileURL(find.resolve("@huggingface/transformers")));
const read = (name) => readFileSync(join(folder, name), "utf8");
const rules = JSON.parse(read("tokenizer.json")),
  config = JSON.parse(read("tokenizer_config.json"));
const table = JSON.parse(read("normalize.json")),
  pieces = rowsOf(read("vocab.txt"));
const tokenizer = new BertTokenizer(rules, config),
  most = Number(process.env.MAX_TOKENS ?? config.model_max_length);

export const tokenize = tokenizing((text) => tokenizer.encode(text), rules, table, pieces, most);

// transformers.js alone (its own truncation drops [SEP], so the ids are cut here), and nothing but the normalized text
export const plain = (text) => ((ids) => (ids.length > most ? [...ids.slice(0, most - 1), ids.at(-1)] : ids))(tokenizer.encode(text));
export const normalize = normalizer(table, pieces);
