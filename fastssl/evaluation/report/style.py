"""The page's style sheet: one column on a phone, two on a desk, light and dark."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  --page: #f6f6f3; --card: #ffffff; --ink: #1b1d1f; --muted: #5d6469; --grid: #dcdfdd;
  --series-1: #0b6e69; --series-2: #c2570c; --series-3: #5b4bb5;
  --series-4: #d65a9e; --series-5: #2c8fd6; --series-6: #5c4a10; --code: #f0f1ee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131516; --card: #1c1f21; --ink: #eceeec; --muted: #a2aaae; --grid: #3a4043;
    --series-1: #4fc3b8; --series-2: #f0945a; --series-3: #a99bf5;
    --series-4: #c43d80; --series-5: #4a7bb0; --series-6: #efe08a; --code: #272b2d;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1rem 4rem; }
header { margin-bottom: 2rem; }
.eyebrow { margin: 0; color: var(--muted); font-size: .85rem; letter-spacing: .06em; }
h1 { margin: .3rem 0 .6rem; font-size: clamp(1.55rem, 5vw, 2.3rem); line-height: 1.18;
  letter-spacing: -.015em; text-wrap: balance; }
h2 { margin: 2.6rem 0 .3rem; font-size: 1.25rem; letter-spacing: -.005em; }
h3 { margin: 1.4rem 0 .2rem; font-size: 1rem; }
h4 { margin: 1rem 0 0; font-size: .92rem; font-weight: 500; color: var(--muted); }
p { margin: .4rem 0 1rem; max-width: 44rem; }
.lead { font-size: 1.05rem; color: var(--muted); }
.note { color: var(--muted); font-size: .92rem; }
.card { background: var(--card); border: 1px solid var(--grid); border-radius: 10px;
  padding: 1rem; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.numbers { display: grid; gap: 1rem; margin-bottom: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 11rem), 1fr)); }
.number b { display: block; font-size: 1.9rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.number span { color: var(--muted); font-size: .88rem; }
.number.one b { color: var(--series-1); } .number.two b { color: var(--series-2); }
/* A chart that stands alone keeps the size of its text. */
.grid > :only-child { max-width: 38rem; }
svg { display: block; width: 100%; height: auto; }
figure { margin: 0; }
figcaption { margin-top: .5rem; color: var(--muted); font-size: .88rem; }
img { display: block; width: 100%; height: auto; border-radius: 6px; }
.pair { display: grid; gap: 1rem; grid-template-columns: 1fr 1fr; }
.scroll { overflow-x: auto; margin: 1rem 0; }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--muted); font-weight: 500; padding: .4rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem .4rem 0; text-align: left; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
td.n, th.n { text-align: right; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
td:first-child { min-width: 14rem; }
small { color: var(--muted); font-size: .85em; }
.cell { padding: .1em .5em; border-radius: 5px; white-space: nowrap; }
.whole { white-space: nowrap; }
.published { font-style: italic; color: var(--muted); }
.mark { display: inline-block; padding: 0 .4em; border: 1px solid var(--series-2);
  border-radius: 5px; color: var(--series-2); font-size: .8em; }
td.wrap { overflow-wrap: anywhere; }
.dense table { font-size: .82rem; }
.dense th { white-space: normal; }
.dense th, .dense td { padding: .3rem .5rem .3rem 0; }
pre { margin: .3rem 0 1rem; padding: .8rem 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere; background: var(--code);
  border-radius: 8px; font: .86rem/1.5 var(--mono); }
dt { font-weight: 600; margin-top: .8rem; } dd { margin: 0; }
"""
