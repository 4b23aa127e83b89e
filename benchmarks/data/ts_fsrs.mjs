// Replays reviews with ts-fsrs: reads [[ [days since the first, rating 1-4], ... ], ...] from stdin, writes for each
// history its last state {stability, difficulty, due_s (after the first review), retrievability 30 days after the last}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { createEmptyCard, fsrs } = createRequire(process.argv[2] + "/")("ts-fsrs");
const start = Date.UTC(2026, 0, 1, 9);
const scheduler = fsrs({ enable_fuzz: false });
const states = JSON.parse(readFileSync(0, "utf8")).map((history) => {
  let card = createEmptyCard(new Date(start));
  let at = start;
  for (const [days, rating] of history) {
    at = start + days * 86400000;
    card = scheduler.next(card, new Date(at), rating).card;
  }
  const later = new Date(at + 30 * 86400000);
  return {
    stability: card.stability,
    difficulty: card.difficulty,
    due_s: (card.due.getTime() - start) / 1000,
    retrievability: scheduler.get_retrievability(card, later, false),
  };
});
process.stdout.write(JSON.stringify(states));
