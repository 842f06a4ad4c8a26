// The classifier off the page's thread: {id, memos} in, {id, answers} or {id, error} out, in order.
import { openClassifier } from "./memo.mjs";

const opening = openClassifier("/model/");
opening.then(({ classify, encode, ...about }) => postMessage({ about }), e => postMessage({ refused: e.message }));

let last = Promise.resolve();
onmessage = ({ data: { id, memos } }) => { last = last.then(() => answer(id, memos)); };

async function answer(id, memos) {
  try {
    const { classify } = await opening, answers = [];
    for (const memo of memos) answers.push(await classify(memo));
    postMessage({ id, answers });
  } catch (e) { postMessage({ id, error: e.message }); }
}
