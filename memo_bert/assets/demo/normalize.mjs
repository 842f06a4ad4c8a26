// The text form in which no client can differ: words as BERT sees them, one space between. See nbs/04a_tokens.ipynb.
// table: normalize.json of the model's folder; pieces: the lines of its vocab.txt.
export function normalizer(table, pieces) {
  const vocabulary = new Set(pieces),
    { ranges, unknown, longest } = table;
  const mapped = new Map(Object.entries(table.mapped));

  function rule(code) {
    let low = 0,
      high = ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1,
        [first, last, kind] = ranges[middle];
      if (code < first) high = middle - 1;
      else if (code > last) low = middle + 1;
      else return kind;
    }
  }

  function replaced(char) {
    if (mapped.has(char)) return mapped.get(char);
    const kind = rule(char.codePointAt(0));
    return kind === "drop" ? "" : kind === "space" ? " " : kind === "alone" ? ` ${char} ` : char;
  }

  function spelled(word) {
    const chars = [...word];
    if (chars.length > longest) return false;
    for (let at = 0, end; at < chars.length; at = end) {
      end = chars.length;
      while (end > at && !vocabulary.has((at ? "##" : "") + chars.slice(at, end).join(""))) end--;
      if (end === at) return false;
    }
    return true;
  }

  return (text) =>
    Array.from(text, replaced)
      .join("")
      .split(" ")
      .filter(Boolean)
      .map((word) => (spelled(word) ? word : unknown))
      .join(" ");
}

export const rowsOf = (vocab) => vocab.replace(/\n$/, "").split("\n");

// text => ids of a BERT tokenizer, whoever wrote it. encode: its function from a text to ids; rules: tokenizer.json; most: the length.
// A typed [SEP] is the separator, as in Hugging Face's Python; all else is normalized, so that the engine's Unicode does not matter.
export function tokenizing(encode, rules, table, pieces, most) {
  const normalize = normalizer(table, pieces);
  const special = new RegExp(`(${rules.added_tokens.map((t) => t.content.replace(/[[\]]/g, "\\$&")).join("|")})`);
  const cut = (ids) => (ids.length > most ? [...ids.slice(0, most - 1), ids.at(-1)] : ids);
  return (text) =>
    cut(
      encode(
        text
          .split(special)
          .map((part, i) => (i % 2 ? part : normalize(part)))
          .join(" "),
      ),
    );
}
