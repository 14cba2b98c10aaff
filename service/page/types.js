// Numbers of pairs by defect type, as a form holds them: type → what was entered.

// `all` pairs over the types as the API spreads them: evenly, the first ones in alphabetical order get what is left over.
export function spread(all, types) {
  const each = Math.floor(all / types.length);
  return Object.fromEntries([...types].sort().map((type, at) => [type, String(each + (at < all % types.length ? 1 : 0))]));
}

export const sum = (counts) => Object.values(counts).reduce((all, count) => all + Number(count), 0);

// The types that pairs are wanted of, as the API takes them.
export const asDefects = (counts) => Object.fromEntries(Object.entries(counts).map(([type, count]) => [type, Number(count)]).filter(([, count]) => count));
