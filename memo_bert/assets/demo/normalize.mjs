// The text form in which no client can differ: words as BERT sees them, one space between. See nbs/04a_tokens.ipynb.
// table: normalize.json of the model's folder; pieces: the lines of its vocab.txt.
export function normalizer(table, pieces) {
    const vocabulary = new Set(pieces), {ranges, unknown, longest} = table
    const mapped = new Map(Object.entries(table.mapped))

    function rule(code) {
        let low = 0, high = ranges.length - 1
        while (low <= high) {
            const middle = (low + high) >> 1, [first, last, kind] = ranges[middle]
            if (code < first) high = middle - 1
            else if (code > last) low = middle + 1
            else return kind
        }
    }

    function replaced(char) {
        if (mapped.has(char)) return mapped.get(char)
        const kind = rule(char.codePointAt(0))
        return kind === 'drop' ? '' : kind === 'space' ? ' ' : kind === 'alone' ? ` ${char} ` : char
    }

    function spelled(word) {
        const chars = [...word]
        if (chars.length > longest) return false
        for (let at = 0, end; at < chars.length; at = end) {
            end = chars.length
            while (end > at && !vocabulary.has((at ? '##' : '') + chars.slice(at, end).join(''))) end--
            if (end === at) return false
        }
        return true
    }

    return text => Array.from(text, replaced).join('').split(' ').filter(Boolean)
        .map(word => spelled(word) ? word : unknown).join(' ')
}
